"""One line for each figure, and the table of them all at the end of tests/gpu.sh.

Lines go to standard output and, with tabs between their fields, to the file that GPU_VERDICTS names.
"""

import os
import sys


def say(kind, what, figure="", limit=""):
    line = f"{kind:7} {what:66} {figure}" + (f"  (limit: {limit})" if limit else "")
    print(line.rstrip(), flush=True)
    path = os.environ.get("GPU_VERDICTS")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write("\t".join([kind, what, figure, limit]) + "\n")


def judge(what, good, figure, limit):
    """`ok` or `missed`."""
    say("ok" if good else "missed", what, figure, limit)


def at_most(what, value, limit, unit=""):
    judge(what, value <= limit, f"{value:.4g}{unit}", f"at most {limit:g}{unit}")


def at_least(what, value, limit, unit=""):
    judge(what, value >= limit, f"{value:.4g}{unit}", f"at least {limit:g}{unit}")


def told(what, figure):
    """A figure without a limit."""
    say("told", what, figure)


def absent(what, why):
    """Something that could not be checked here."""
    say("absent", what, why)


def table(path):
    """What has a limit again, and what is absent. Returns whether something was missed."""
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t") for line in file]
    print(f"\n{'all together':74} {'found':34} limit")
    for kind in ("missed", "absent", "ok"):
        for row in rows:
            if row[0] == kind:
                print(f"{kind:7} {row[1]:66} {row[2]:34} {row[3]}".rstrip())
    counts = {kind: sum(row[0] == kind for row in rows) for kind in ("ok", "missed", "absent")}
    print(f"\n{counts['ok']} ok, {counts['missed']} missed, {counts['absent']} absent")
    return counts["missed"] > 0


if __name__ == "__main__":
    if sys.argv[1] == "table":
        sys.exit(1 if table(sys.argv[2]) else 0)
    # KIND WHAT [FIGURE [LIMIT]], from the shell
    say(*sys.argv[1:])
