#!/usr/bin/env python3
"""Runs the Autobahn fuzzing client against the ws_echo example, and judges its report.

    autobahn.py ECHO_BINARY WORK_FOLDER

Exits with 1 when any case failed, with 77 when there is no Python 2.7, without which the suite
does not run. $PYTHON27 names one that is in no usual place.
"""

import collections
import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys

REQUIREMENTS = pathlib.Path(__file__).with_name("autobahn-requirements.txt")
# 12 and 13 are about compression, which is never agreed to.
EXCLUDED = ["12.*", "13.*"]
FEWEST_CASES = 301
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
SKIPPED = 77
TIME_LIMIT = 600

# `sys.path` alone would not read the .pth files of the namespace packages.
RUN = """
import site, sys
site.addsitedir(sys.argv[1]); sys.path.insert(0, sys.argv.pop(1))
from autobahntestsuite.wstest import run; run()
"""


def main():
    echo, work = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    python = find_python()
    if python is None:
        print("SKIPPED: Autobahn needs Python 2.7, and there is none")
        return SKIPPED
    packages = install(python, work)
    report = work / "report"
    shutil.rmtree(report, ignore_errors=True)
    server = subprocess.Popen([echo, "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().removeprefix("Listening on ").strip()
        spec = work / "spec.json"
        spec.write_text(json.dumps(specification(address, report)))
        wstest = [python, "-c", RUN, packages, "-m", "fuzzingclient", "-s", spec]
        # In its own folder, since it leaves files behind where it runs.
        with open(work / "log", "w") as log:
            subprocess.run(wstest, cwd=work, stdout=log, stderr=log, check=True, timeout=TIME_LIMIT)
        if server.poll() is not None:
            print(f"the echo server ended with {server.returncode}")
            return 1
    finally:
        server.kill()
        server.wait()
    return judge(json.loads((report / "index.json").read_text())["hookbot"])


def find_python():
    """The first command that is Python 2.7: a name on the path may be a shim without one."""
    candidates = [os.environ.get("PYTHON27"), "python2.7", "python2"]
    candidates += glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python2.7"))
    check = "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))"
    for candidate in filter(None, candidates):
        try:
            if subprocess.run([candidate, "-c", check], capture_output=True).returncode == 0:
                return candidate
        except OSError:
            pass
    return None


def install(python, work):
    """Installs the suite below `work`, unless that was done with the same requirements."""
    packages, done = work / "packages", work / "installed.txt"
    wanted = REQUIREMENTS.read_text()
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(packages, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        pip += ["--no-deps", "--target", packages, "-r", REQUIREMENTS]
        subprocess.run(pip, check=True)
        (packages / "zope" / "__init__.py").touch()
        done.write_text(wanted)
    return packages


def specification(address, report):
    return {
        "outdir": str(report),
        "servers": [{"agent": "hookbot", "url": f"ws://{address}"}],
        "cases": ["*"],
        "exclude-cases": EXCLUDED,
        "exclude-agent-cases": {},
    }


def judge(cases):
    """Prints what came of the cases; 1 if any is bad, or if some did not run."""
    number = lambda case: [int(part) for part in case.split(".")]
    bad = False
    for aspect in ["behavior", "behaviorClose"]:
        by_result = collections.defaultdict(list)
        for case in sorted(cases, key=number):
            by_result[cases[case][aspect]].append(case)
        for result, which in sorted(by_result.items()):
            names = "" if result == "OK" else ": " + " ".join(which)
            print(f"{aspect:13} {result:13} {len(which):3}{names}")
        bad |= not GOOD >= by_result.keys()
    if len(cases) < FEWEST_CASES:
        print(f"only {len(cases)} of {FEWEST_CASES} cases ran")
        bad = True
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
