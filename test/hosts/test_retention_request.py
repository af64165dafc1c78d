"""What retention takes for a request (request.py)."""

import json
import unittest

import fixture  # noqa: F401

from chtbackup.retention.borg import Refused
from chtbackup.retention.request import asked_by_operator

GOOD = {
    "policy": {"within": 7, "daily": 14, "weekly": 6, "monthly": 4, "yearly": 2},
    "passphrase": "correct horse",
    "repository": "a" * 64,
}


class ARequest(unittest.TestCase):
    def test_has_a_policy_a_passphrase_and_a_repository_and_the_rest_by_default(self):
        self.assertEqual(
            asked_by_operator(json.dumps(GOOD)),
            {**GOOD, "shown": [], "seen": {}, "despite": [], "drill": {}, "now": None},
        )

    def test_may_have_what_a_later_version_adds(self):
        self.assertIs(asked_by_operator(json.dumps({**GOOD, "more": True}))["more"], True)

    def test_of_none_of_these_is_one_and_what_is_in_it_isnt_repeated(self):
        for bad in ({"policy": {**GOOD["policy"], "within": 0}}, {"now": float("nan")}, {"drill": {"succeeded": []}}):
            with self.assertRaisesRegex(Refused, f"^the request's {next(iter(bad))} isn't in order") as caught:
                asked_by_operator(json.dumps({**GOOD, **bad}))
            self.assertNotIn("horse", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
