"""Measures every hostile input of the tests, and writes the table of docs/hostile-inputs.md.

python benchmarks/hostile.py docs/hostile-inputs.md
"""

import os
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.hostile import archives, arrays, images, models  # noqa: E402
from helpers.hostile.measured import measured  # noqa: E402

KINDS = {
    "Images": images.CASES,
    "Archives": archives.CASES,
    "Arrays": arrays.CASES,
    "Weights, diffusers folders and runs": models.CASES,
}
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def main() -> None:
    page = Path(sys.argv[1]).absolute()
    lines, mebibytes, seconds = [], 0.0, 0.0
    for kind, cases in KINDS.items():
        lines += [
            f"\n### {kind}\n",
            "| input | MiB above idle | CPU seconds | what is said |",
            "| --- | --- | --- | --- |",
        ]
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                os.environ["UNDIFFUSE_CACHE"] = f"{folder}/cache"
                case.make()
                found = measured(case.read)
                os.chdir(ROOT)
            assert case.matches(found.sentence), (case.name, found.sentence)
            sentence = escape(found.sentence.replace(f"{folder}/", "")).replace("|", "\\|")
            sentence = sentence if len(sentence) <= 240 else f"{sentence[:240]}..."
            lines.append(f"| {case.name} | {found.mebibytes:,.0f} | {found.seconds:.2f} | {sentence} |")
            mebibytes, seconds = max(mebibytes, found.mebibytes), max(seconds, found.seconds)
    total = sum(map(len, KINDS.values()))
    summary = f"{total} inputs; at most {mebibytes:,.0f} MiB above the idle process and {seconds:.1f} CPU seconds.\n"
    text = page.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{summary}" + "\n".join(lines) + f"\n\n{END}{after}", encoding="utf-8")
    print(summary, end="")


if __name__ == "__main__":
    main()
