import base64
import hashlib
import os
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path

import fixture

LIBRARY = fixture.ROOT / "provider" / "scripts" / "python_environment.sh"


class PythonEnvironment(unittest.TestCase):
    """Made by the shell functions that a machine runs, from a mirror of its own with one small package."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="cht-backup-environment-")
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.path = self.folder / "venv"
        self.mirror = self.folder / "mirror"
        self.mirror.mkdir()

    def requirement(self, version):
        """A package with a program, in the mirror; the line that locks it."""
        name, info = f"small-{version}-py3-none-any.whl", f"small-{version}.dist-info"
        files = {
            "small.py": f"def main():\n    print({version!r})\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: small\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": "[console_scripts]\nsmall = small:main\n",
        }
        record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(self.mirror / name, "w") as wheel:
            for file, text in {**files, f"{info}/RECORD": record}.items():
                wheel.writestr(file, text)
        digest = hashlib.sha256((self.mirror / name).read_bytes()).hexdigest()
        return f"small=={version} --hash=sha256:{digest}\n"

    def apply(self, requirements, **environment):
        encoded = base64.b64encode(requirements.encode()).decode()
        words = 'set -eu; . "$0"; python_environment_apply "$1" "$2"; python_environment_read "$1"'
        mirror = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.mirror)}
        return subprocess.run(
            ["sh", "-c", words, LIBRARY, str(self.path), encoded], capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **mirror, **environment},
        )  # fmt: skip

    def small(self):
        """What the package's program says, started as a unit starts it."""
        return subprocess.run([self.path / "bin" / "small"], capture_output=True, text=True).stdout.strip()

    def test_is_made_beside_the_one_in_use_and_takes_its_place_whole(self):
        done = self.apply(self.requirement("1.0"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.small(), "1.0")
        digest, again, _requirements = done.stdout.split()
        self.assertEqual(digest, again)  # nothing is left to be compiled later, which would look like drift

        wrong = self.requirement("2.0").replace("sha256:", "sha256:0")[:-2] + "\n"
        for requirements, environment in (
            (wrong, {}),
            (self.requirement("2.0"), {"PIP_FIND_LINKS": "/nowhere"}),
        ):
            failed = self.apply(requirements, **environment)
            self.assertNotEqual(failed.returncode, 0)
            self.assertIn("the Python environment could not be made", failed.stderr)
            self.assertEqual(self.small(), "1.0")

        # What others have set up for pip on this machine, but for where it takes packages from.
        configuration = self.folder / ".config/pip/pip.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text("[global]\nuser = true\n[install]\nprefix = /nowhere\n")
        foreign = {
            "PIP_USER": "1",
            "PIP_TARGET": str(self.folder / "elsewhere"),
            "PIP_REQUIRE_VIRTUALENV": "1",
        }
        done = self.apply(self.requirement("2.0"), **foreign)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.small(), "2.0")
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith(".fetched")], [])
        named = subprocess.run(["grep", "-rlI", ".fetched-", self.path / "bin", self.path / "pyvenv.cfg"],
                               capture_output=True, text=True)  # fmt: skip
        self.assertEqual(named.stdout, "")

    def test_of_a_program_that_is_built_is_made_whatever_is_set_up_for_pip(self):
        configuration = self.folder / ".config/pip/pip.conf"
        configuration.parent.mkdir(parents=True)
        configuration.write_text("[global]\nuser = true\n[install]\nprefix = /nowhere\n")
        encoded = base64.b64encode(self.requirement("1.0").encode()).decode()
        # Packages of the system are another matter.
        words = (
            'set -eu; . "$1"; . "$2"'
            "; packages_there() { :; }; packages_new() { :; }; packages_install() { :; }"
            '; packages_build "$3" "$4" "$4" "import small"'
        )
        done = subprocess.run(
            ["sh", "-c", words, "-", LIBRARY, LIBRARY.with_name("packages.sh"), str(self.path), encoded],
            capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "PIP_NO_INDEX": "1",
                 "PIP_FIND_LINKS": str(self.mirror)},
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.small(), "1.0")
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith(".built")], [])


if __name__ == "__main__":
    unittest.main()
