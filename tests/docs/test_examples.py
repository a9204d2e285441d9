"""Every example in README and documentation does what its page says; and what runs the examples notices when not."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.timeout(600)
def test_examples(examples: ModuleType, tmp_path: Path) -> None:
    # All pages at once, and so in one test: most of the time they wait for simulated devices.
    def run(page: Path) -> tuple[int, list[str]]:
        folder = tmp_path / "-".join(page.relative_to(examples.ROOT).with_suffix("").parts)
        folder.mkdir()
        runner = examples.Runner(page, folder)
        runner.run()
        return runner.executed, runner.problems

    # What they print has nothing to do with the codec: the second run, with the other one, takes the README alone.
    pages = examples.pages()[:1] if os.environ.get("MCUMGRX_PURE_PYTHON", "") not in ("", "0") else examples.pages()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, pages))
    problems = [problem for _, found in results for problem in found]
    assert not problems, (
        "\n\n" + "\n\n".join(problems) + "\n\npython docs/examples.py --update writes it into the pages"
    )
    assert sum(executed for executed, _ in results) > 3 * len(pages)


def test_every_block_says_why_it_is_not_executed(examples: ModuleType) -> None:
    for page in examples.pages():
        for block in examples.blocks(page):
            if block.language in ("console", "python"):
                continue
            assert block.language in ("text", "toml", "{toctree}"), f"{page.name}:{block.start}: {block.language!r}"


PAGE = """\
# A page

```console
$ python -c "print('hello')"
hello
$ python -c "print('took 0.3 s'); import sys; sys.exit(3)"
took 12.7 s
$ echo $?
3
```
"""


@pytest.mark.parametrize(
    ("before", "after", "problems"),
    [
        ("", "", 0),
        ("\nhello\n", "\ngoodbye\n", 1),  # other output
        ("\nhello\n", "\n", 1),  # output that is not there
        ("\nhello\n", "\nhello\nhello\n", 1),
        ("\nhello\n", "\n...\n", 0),
        ("took 12.7 s", "took a while", 1),
        ("\n3\n", "\n4\n", 1),  # another exit code
        ("$ echo $?\n3\n", "", 1),  # a failure that the page does not mention
        ("```console", "<!-- not executed: it would fail -->\n```console", 0),
        ("```console", "```python\nraise SystemExit(1)\n```\n\n```console", 1),
        ("```console", "```python\nassert True\n```\n\n```console", 0),
        ("```console", "<!-- same as: examples/dfu_script.py -->\n```python\npass\n```\n\n```console", 1),
    ],
)
def test_a_wrong_page_is_noticed(examples: ModuleType, tmp_path: Path, before: str, after: str, problems: int) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace(before, after, 1) if before else PAGE, encoding="utf-8")
    folder = tmp_path / "run"
    folder.mkdir()
    runner = examples.Runner(page, folder)
    runner.run()
    assert len(runner.problems) == problems, runner.problems


def test_update(examples: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("\nhello\n", "\ngoodbye\nand more\n", 1), encoding="utf-8")
    (tmp_path / "run").mkdir()
    runner = examples.Runner(page, tmp_path / "run")
    runner.run()
    runner.update()
    assert page.read_text(encoding="utf-8") == PAGE


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("back after 5.9 s (5.9 s)", "back after 13.6 s (14 s)", True),
        ("uploaded 1.1.0", "uploaded 1.2.0", False),
        ("done (6.8 s, 49.7 KB at 57 KB/s)", "done (2 min 07 s, 49.7 KB at 3.2 KB/s)", True),
        ("upload: 10 %, 5.0 KB of 49.7 KB, 36 KB/s", "upload: 10 %, 5.0 KB of 49.7 KB", True),
        ("upload: 10 %, 5.0 KB of 49.7 KB, 36 KB/s, 1.2 s left", "upload: 10 %, 5.0 KB of 49.7 KB, 9 KB/s", True),
        ("reset: reset", "reset: reset (0.1 s)", True),
        ('{"elapsed_s": 0.1, "size": 5}', '{"elapsed_s": 12.25, "size": 5}', True),
        ('{"elapsed_s": 0.1, "size": 5}', '{"elapsed_s": 0.1, "size": 6}', False),
    ],
)
def test_what_may_differ(examples: ModuleType, expected: str, actual: str, same: bool) -> None:
    assert examples.matches([expected], [actual]) is same
