"""What `doctor --self-test --json` found: doctor.py NAME REPORT ERRORS CODE."""

import json
import sys

from verdict import judge, told


def main():
    name, report, errors, code = sys.argv[1:5]
    try:
        with open(report, encoding="utf-8") as file:
            sections = json.load(file)["sections"]
    except (ValueError, KeyError):
        sections = {}
    test = sections.get("self-test", {})
    with open(errors, encoding="utf-8", errors="replace") as file:
        said = " ".join(file.read().split())[:300]
    found = test.get("kernels", {}).get("found", said or "no report")
    judge(name, code == "0" and found.startswith("right"), found, "it runs, and numbers are right")
    for fact, of in test.items():
        if fact.startswith(("card", "copying", "note")):
            told(f"{name}: {fact}", of["found"])
    if "kernels" in sections.get("NVIDIA", {}):
        told(f"{name}: kernels from", sections["NVIDIA"]["kernels"]["found"].split(";")[0])


if __name__ == "__main__":
    main()
