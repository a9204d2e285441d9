"""README and documentation agree with the code, with the repository, and with each other."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mcumgrx import errors
from mcumgrx.address import Address
from mcumgrx.cli.exit_codes import Exit
from mcumgrx.cli.tree import CORE_COMMANDS, make_root
from mcumgrx.errors import Outcome, UsageError
from mcumgrx.events import StageName
from mcumgrx.flows import Ending
from mcumgrx.plugin_api import TransportPlugin
from mcumgrx.registry import default_registry

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


# -- what follows from the code ---------------------------------------------------------------------------------------


def test_generated_parts_are_up_to_date(generate: ModuleType) -> None:
    pages = generate.pages()
    assert {page.name for page in pages} == {
        "README.md",
        "ble.md",
        "commands.md",
        "api.md",
        "errors.md",
        "simulator.md",
    }
    stale = [page.name for page in pages if generate.generated(page) != page.read_text(encoding="utf-8")]
    assert not stale, f"{', '.join(stale)}: run python docs/generate.py"


def test_hardware_counts_as_run_when_a_report_says_so(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "HARDWARE_REPORTS", tmp_path)
    never = generate.hardware_table()
    assert re.findall(r"^\| (\w+) .*never run", never, re.M) == ["Linux", "Windows", "macOS"]
    report = {
        **{"date": "2026-02-03", "device": "ble:Widget", "system": "Windows", "bleak": "3.1.0", "emulated": True},
        **{"passed": 1, "failed": 1, "skipped": 0},
        "steps": {"scan": {"result": "passed"}, "dfu": {"result": "failed", "reason": "it did not stay"}},
    }
    (tmp_path / "board.json").write_text(json.dumps(report), encoding="utf-8")
    assert generate.hardware_table() == never
    (tmp_path / "board.json").write_text(json.dumps({**report, "emulated": False}), encoding="utf-8")
    table = generate.hardware_table()
    assert "| Windows | 2026-02-03 | ble:Widget; bleak 3.1.0 | 1 passed, 1 failed (scan) | `board.json` |" in table
    assert re.findall(r"^\| (\w+) .*never run", table, re.M) == ["Linux", "macOS"]


def test_the_readme_names_every_command_and_no_other() -> None:
    registry = default_registry()
    ours = [record for record in registry.plugins if record.distribution == "mcumgrx"]
    known = {what.removeprefix("command ") for one in ours for what in one.supplies if what.startswith("command ")}
    known |= set(CORE_COMMANDS)
    table = README.partition("<!-- begin command-table -->")[2].partition("<!-- end command-table -->")[0]
    named = set()
    for first, rest in re.findall(r"^\| `mcumgrx (\S+)`(.*?) \|", table, re.M):
        named |= {f"{first} {second}" for second in re.findall(r"`(.+?)`", rest)} or {first}
    assert named == known
    # The same, as click finds them.
    root = make_root()
    context = root.make_context("mcumgrx", ["--json"], resilient_parsing=True)
    assert {name.split(" ")[0] for name in known} <= set(root.list_commands(context))


def test_the_readme_has_every_exit_code() -> None:
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", README, re.M)} == {int(code) for code in Exit}


def test_the_error_page_has_every_exception_and_outcome() -> None:
    page = read("reference/errors.md")
    found = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    for name in (one for one, kind in found.items() if kind.__module__ == errors.__name__):
        assert f"`{name}`" in page or f"`mcumgrx.{name}`" in page or name in ("ErrorCode", "Exit", "Outcome"), name
    for outcome in Outcome:
        assert f"`{outcome.value}`" in page


def our_transports() -> dict[str, TransportPlugin]:
    """The transports of mcumgrx itself by scheme, aliases left out."""
    found = default_registry().transports.values()
    return {one.scheme: one for one in found if one.load.startswith("mcumgrx_plugins.")}


def test_the_address_page_has_every_scheme_and_no_other() -> None:
    sections = re.findall(r"^## (\w+):", read("reference/addresses.md"), re.M)
    assert sorted(sections) == sorted(our_transports())


@pytest.mark.parametrize("scheme", sorted(our_transports()))
def test_the_address_page_has_every_option(scheme: str) -> None:
    section = read("reference/addresses.md").partition(f"\n## {scheme}:\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.M)
    example = our_transports()[scheme].example.partition(",")[0]
    with pytest.raises(UsageError) as caught:
        default_registry().transport(Address.parse(f"{example},no-such-option=1"))
    assert caught.value.hint is not None
    known = caught.value.hint.removeprefix("its options are: ")
    assert sorted(documented) == ([] if known == "none" else known.split(", "))


def test_the_readme_has_every_link_and_no_other() -> None:
    table = README.partition("<!-- begin address-table -->")[2].partition("<!-- end address-table -->")[0]
    assert sorted(re.findall(r"^\| `(\w+):", table, re.M)) == sorted(our_transports())


def test_the_json_page_has_every_stage_and_ending() -> None:
    page = read("reference/json.md")
    for name in [*StageName, *Ending]:
        assert f"`{name.value}`" in page, name


# -- the pages themselves ---------------------------------------------------------------------------------------------


def test_the_readme_can_be_read_at_once() -> None:
    assert len(README.splitlines()) <= 310


def test_what_the_readme_says_is_where_it_is() -> None:
    tree = README.partition("## What is where\n\n```text\n")[2].partition("```")[0]
    folder = ""
    named = set()
    for line in tree.splitlines():
        inside = line.startswith("  ")
        for path in line[:31].split():
            where = f"{folder}{path}" if inside else path
            assert (ROOT / where).exists(), where
            named.add(where.rstrip("/"))
        if not inside:
            folder = line.split(" ")[0]
    private = {"__init__.py", "__main__.py", "_version.py", "_pycodec.py", "_pycbor.py"}
    core = {f"mcumgrx/{path.name}" for path in (ROOT / "mcumgrx").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert core - {f"mcumgrx/{name}" for name in (*private, "__pycache__")} <= named


def test_the_readme_names_every_plugin() -> None:
    tree = README.partition("## What is where\n\n```text\n")[2].partition("```")[0]
    line = " ".join(tree.partition("plugins/mcumgrx_plugins/")[2].partition("\nexamples/")[0].split())
    for path in (ROOT / "plugins" / "mcumgrx_plugins").iterdir():
        if (path / "__init__.py").exists():
            assert re.search(rf"\b{path.name}\b", line), path.name


def test_links_lead_somewhere(examples: ModuleType) -> None:
    for page in examples.pages():
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)", text):
            assert "://" not in target, f"{page.name}: {target}"
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = read("index.md")
    for path in (ROOT / "docs").rglob("*.md"):
        name = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        if name != "index" and "_build" not in name:
            assert f"\n{name}\n" in index, name


@pytest.mark.skipif(
    importlib.util.find_spec("myst_parser") is None, reason="needs the extra docs: pip install -e .[docs]"
)
def test_the_documentation_is_built_without_warnings(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path / "html")]
    done = subprocess.run([*words, "-d", str(tmp_path / "trees")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "index.html").exists()
