import contextlib
import json
import subprocess
import tempfile
import unittest

from fixture import ROOT

from chtbackup.compose import environment as compose_env
from chtbackup.compose import files as compose

TABLE = json.loads((ROOT / "test" / "fixtures" / "env-forms.json").read_text())["forms"]


class WithoutCompose(unittest.TestCase):
    """How `.env` reads on a machine where Compose can't be asked."""

    def test_every_form_reads_as_real_compose_reads_it_or_it_is_said_that_it_isnt_known(self):
        self.assertGreater(len(TABLE), 60)
        for form in TABLE:
            with self.subTest(form["text"]):
                if form.get("refused"):
                    with self.assertRaises(compose_env.NotReadable):
                        compose_env.parse(form["text"])
                    continue
                reading = compose_env.parse(form["text"])
                for name, value in form["values"].items():
                    if name not in reading.unsure or value is None:
                        self.assertEqual(reading.values.get(name), value)

    def test_only_what_names_a_variable_is_left_unknown(self):
        for form in TABLE:
            if not form.get("refused") and "$" not in form["text"]:
                unsure = compose_env.parse(form["text"]).unsure
                self.assertEqual([name for name in unsure if form["values"].get(name) is not None], [], form["text"])

    def test_what_depends_on_the_environment_is_said_with_the_variables_name(self):
        for text, variable in (
            ("COUCHDB_DATA=${HOME}/cht/couchdb\n", "HOME"),
            ("HOME=/x\nCOUCHDB_DATA=$HOME/couchdb\n", "HOME"),
            ("BASE=$TOP\nCOUCHDB_DATA=${BASE}/couchdb\n", "TOP"),
            ("COUCHDB_DATA=${TOP:-/srv}/couchdb\n", "TOP"),
        ):
            self.assertEqual(compose_env.parse(text).unsure["COUCHDB_DATA"], variable)

    def test_an_error_names_the_line_and_no_value(self):
        for text in ("A=1\nB='secret\n", "A=1\nB=${secret\n", "A=1\nB=x\nnot secret\n"):
            with self.assertRaisesRegex(compose_env.NotReadable, "line [23]") as caught:
                compose_env.parse(text)
            self.assertNotIn("secret", str(caught.exception))


def real_compose():
    for command in compose.COMMANDS:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, timeout=60)
            if done.returncode == 0:
                return done.stdout.strip()
    return ""


@unittest.skipUnless(real_compose().startswith("2."), "Docker Compose 2 isn't on this computer")
class WithCompose(unittest.TestCase):
    def test_compose_is_asked_and_says_the_same(self):
        for form in TABLE[::15]:
            with self.subTest(form["text"]), tempfile.NamedTemporaryFile("w", newline="") as file:
                file.write(form["text"])
                file.flush()
                reading, doubt = compose.read_environment(file.name)
                self.assertEqual(bool(doubt), bool(form.get("refused")))
                for name, value in form.get("values", {}).items():
                    if name not in reading.unsure:
                        self.assertEqual(reading.values.get(name), value)


if __name__ == "__main__":
    unittest.main()
