"""What a program takes of a file that the operator's computer has written, or an administrator has changed."""

import json
import tempfile
import unittest
from pathlib import Path

import fixture  # noqa: F401

from chtbackup.base import contract

DECLARED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]+$", "description": "small letters"},
        "keep": {"type": "integer", "minimum": 1, "description": "a whole number from 1"},
        "cpus": {"type": "number", "exclusiveMinimum": 0, "description": "a number above 0"},
        "on": {"type": "boolean", "description": "true or false"},
        "image": {
            "anyOf": [{"type": "string", "pattern": "^\\S+$"}, {"type": "null"}],
            "description": "a name or null",
        },
        "mode": {"type": "string", "enum": ["A", "B"], "description": "A or B"},
        "ids": {"type": "array", "items": {"type": "string"}, "description": "a list of ids"},
        "inner": {
            "type": "object",
            "properties": {"port": {"type": "integer", "description": "a port"}},
            "required": ["port"],
            "description": "a place",
        },
    },
    "required": ["name", "keep", "cpus", "on", "image", "mode", "ids"],
}
RIGHT = {
    "name": "a",
    "keep": 1,
    "cpus": 0.5,
    "on": True,
    "image": None,
    "mode": "A",
    "ids": ["x"],
    "inner": {"port": 1},
}


class AFile(unittest.TestCase):
    def test_is_taken_as_it_was_declared(self):
        self.assertIsNone(contract.mistake(RIGHT, DECLARED))
        self.assertIsNone(contract.mistake({**RIGHT, "keep": 1.0, "image": "couchdb:3"}, DECLARED))
        without = {name: of for name, of in RIGHT.items() if name != "inner"}
        self.assertIsNone(contract.mistake(without, DECLARED))

    def test_is_refused_with_the_first_setting_that_is_wrong_and_what_would_be_right(self):
        for name, values, what in (
            ("name", ["", "A", "a\n", "ab c", 1, None], "small letters"),
            ("keep", [0, 1.5, "1", True, None, float("inf"), float("nan")], "a whole number from 1"),
            ("cpus", [0, -1, "1", True], "a number above 0"),
            ("on", [0, 1, "true", None], "true or false"),
            ("image", [3, []], "a name or null"),
            ("mode", ["C", None], "A or B"),
            ("ids", ["x", [1], {}], "a list of ids"),
            ("inner", [[], "x", 3], "a place"),
        ):
            for value in values:
                said = contract.mistake({**RIGHT, name: value}, DECLARED)
                self.assertEqual(said, f"{name} must be {what}", repr(value))

    def test_lacks_nothing_and_holds_nothing_else(self):
        self.assertEqual(contract.mistake({**RIGHT, "inner": {}}, DECLARED), "inner.port must be a port")
        self.assertEqual(contract.mistake({**RIGHT, "more": 1}, DECLARED), "there is no setting more")
        self.assertEqual(
            contract.mistake({**RIGHT, "inner": {"port": 1, "x": 2}}, DECLARED), "there is no setting inner.x"
        )
        del (less := dict(RIGHT))["mode"]
        self.assertEqual(contract.mistake(less, DECLARED), "mode must be A or B")
        for value in ([], "x", None, 3):
            self.assertEqual(contract.mistake(value, DECLARED), "must be an object")

    def test_that_cant_be_read_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            for text in (None, "{", "\xff"):
                path = Path(folder, "drill.json")
                if text is not None:
                    path.write_text(text, encoding="latin-1")
                with self.assertRaisesRegex(contract.Wrong, f"^{path}: can't be read as settings: "):
                    contract.read("drill", str(path))

    def test_takes_an_object_where_there_may_be_one(self):
        inner = {**DECLARED["properties"]["inner"]}
        either = {"anyOf": [inner, {"type": "null"}], "description": "a place or null"}
        declared = {**DECLARED, "properties": {**DECLARED["properties"], "inner": either}}
        for value in (RIGHT["inner"], None):
            self.assertIsNone(contract.mistake({**RIGHT, "inner": value}, declared))
        self.assertEqual(contract.mistake({**RIGHT, "inner": {}}, declared), "inner must be a place or null")

    def test_gets_its_defaults_and_every_contract_is_one(self):
        schemas = sorted((fixture.ROOT / "hosts" / "chtbackup" / "schemas").glob("*.json"))
        self.assertGreaterEqual(len(schemas), 3)
        for path in schemas:
            declared = contract.schema(path.stem)
            self.assertEqual(contract.mistake({}, declared).split()[0], next(iter(declared["properties"])))
            for name, of in declared["properties"].items():
                self.assertIn("description", of, f"{path.name}: {name}")
        text = json.dumps(
            {
                "deployment": "moh", "repository": "ssh://offsite/r", "scratch": "/s", "scratchGibibytes": 0, "keep": 1,
                "overdueAfterDays": 8, "network": "n", "image": None, "pull": True, "memoryMebibytes": 64, "cpus": 1,
            }
        )  # fmt: skip
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            self.assertEqual(contract.read("drill", file.name)["from"], "server")


if __name__ == "__main__":
    unittest.main()
