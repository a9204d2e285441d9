"""Plugins are found, kept apart and reported: whatever one of them does, all others work."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.cli.plugins import PluginList
from mcumgrx.contracts import ImageGroup, OsGroup
from mcumgrx.errors import PluginError, UsageError
from mcumgrx.plugin_api import Group
from mcumgrx.registry import RESERVED_COMMANDS, PluginRecord, Registry, default_registry

ROOT = Path(__file__).resolve().parent.parent

OURS = """
    from mcumgrx.plugin_api import CliCommand, GroupPlugin, TransportPlugin, hookimpl

    @hookimpl
    def mcumgrx_transports():
        return [TransportPlugin("wire", "A wire", load="{package}_parts:Wire", aliases=("cable",), example="wire:x")]

    @hookimpl
    def mcumgrx_groups():
        return [GroupPlugin(0, "os", "Ours", load="{package}_parts:Ours", fills="OsGroup")]

    @hookimpl
    def mcumgrx_commands():
        return [CliCommand("os echo", "Echo", load="{package}_parts:echo")]
"""

PARTS = """
    from mcumgrx.plugin_api import Argument, Group, OsGroup, Transport, UsageError, cli_command

    class Wire(Transport):
        limits = None
        def __init__(self, address):
            if address.target == "bad":
                raise UsageError("that wire cannot be")
            if address.target == "bug":
                raise KeyError("oops")
            self.address = address
        async def open(self, timeout_s): ...
        async def close(self): ...
        async def send(self, writes): ...
        async def receive(self): ...
        def framing(self): ...

    class Unfinished(Transport):
        pass

    class Ours(Group, OsGroup):
        def echo(self): ...
        def reset(self): ...
        def bootloader(self): ...

    class Narrow(Group, OsGroup):
        def echo(self): ...

    class Other(Group): ...

    async def discover(): ...

    @cli_command(Argument("text", "what to send"))
    async def echo(context, text): ...

    async def plain(context): ...
"""


class Site:
    """A folder of distributions, as an installer leaves it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(str(path))

    def add(
        self,
        distribution: str,
        entry_points: dict[str, str],
        *,
        version: str = "1.2",
        requires: str = "",
        **modules: str,
    ) -> None:
        for name, text in modules.items():
            (self.path / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
            # Registered as absent now, so that the import is undone at the end of the test.
            self._monkeypatch.setitem(sys.modules, name, None)
            self._monkeypatch.delitem(sys.modules, name)
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        more = f"Requires-Dist: {requires}\n" if requires else ""
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{more}", encoding="utf-8"
        )
        lines = "\n".join(f"{name} = {value}" for name, value in entry_points.items())
        (info / "entry_points.txt").write_text(f"[mcumgrx]\n{lines}\n", encoding="utf-8")

    def add_ours(self) -> None:
        self.add("mcumgrx", {"ours": "ours_plugin"}, ours_plugin=OURS.format(package="ours"), ours_parts=PARTS)

    def registry(self, *disabled: str) -> Registry:
        return Registry(disabled=disabled, path=[str(self.path)])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def record(registry: Registry, name: str) -> PluginRecord:
    return next(plugin for plugin in registry.plugins if plugin.name == name)


def assert_ours_work(registry: Registry) -> None:
    ours = record(registry, "ours")
    assert ours.error is None
    assert ours.supplies == ("transport wire", "transport cable", "group 0 os", "command os echo")
    assert type(registry.transport(Address.parse("wire:x"))).__name__ == "Wire"
    assert registry.group(OsGroup).__name__ == "Ours"
    assert registry.command(registry.commands["os echo"])[0].__name__ == "echo"


ACME = """
    from mcumgrx.plugin_api import CliCommand, GroupPlugin, TransportPlugin, hookimpl

    @hookimpl
    def mcumgrx_transports():
        return [TransportPlugin("acme", "Acme radio", load="acme_parts:Wire", discover="acme_parts:discover")]

    @hookimpl
    def mcumgrx_groups():
        return [GroupPlugin(100, "acme", "Acme heater", load="acme_parts:Other")]

    @hookimpl
    def mcumgrx_commands():
        return (CliCommand("acme heat", "Heat", load="acme_parts:echo"),)
"""


TWIN = ACME.replace("acme heat", "twin heat")


def test_a_third_party_plugin_stands_beside_ours(site: Site) -> None:
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, version="3.1", acme_plugin=ACME, acme_parts=PARTS)
    site.add_ours()
    registry = site.registry()

    assert_ours_work(registry)
    assert [plugin.name for plugin in registry.plugins] == ["ours", "acme"]
    assert registry.plugins[1] == PluginRecord(
        "acme", "3.1", "mcumgrx-acme", ("transport acme", "group 100 acme", "command acme heat")
    )
    plugin = registry.transports["acme"]
    assert plugin.discover is not None
    assert callable(registry.resolve(plugin, plugin.discover))
    assert set(registry.transports) == {"wire", "cable", "acme"}
    assert registry.transports["cable"] is registry.transports["wire"]
    assert set(registry.groups) == {0, 100}
    assert set(registry.commands) == {"os echo", "acme heat"}


def test_installed_distributions_are_found_on_the_module_path(site: Site) -> None:
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=ACME, acme_parts=PARTS)
    assert record(Registry(), "acme").error is None


# -- trouble stays where it is --------------------------------------------------------------------------------------

TROUBLE = {
    "import error": ("import no_such_module_anywhere", "no_such_module_anywhere"),
    "syntax error": ("def", "SyntaxError"),
    "exit on import": ("raise SystemExit('bye')", "SystemExit: bye"),
    "no such attribute": ("", "has no attribute"),
    "cancelled on import": ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    "skipped on import": ("class Skipped(BaseException): pass\nraise Skipped('no licence')", "Skipped: no licence"),
    "hook closes a generator": (
        """
        from mcumgrx.plugin_api import hookimpl
        @hookimpl
        def mcumgrx_commands(): raise GeneratorExit("x")
        """,
        "its hook mcumgrx_commands failed: GeneratorExit: x",
    ),
    "hook without end": (
        """
        from mcumgrx.plugin_api import hookimpl
        @hookimpl
        def mcumgrx_commands(): return mcumgrx_commands()
        """,
        "RecursionError",
    ),
    "wrapper returns a number": (
        """
        from mcumgrx.plugin_api import hookimpl
        @hookimpl(wrapper=True)
        def mcumgrx_commands():
            yield
            return 5
        """,
        "returned an object of type int instead of a list",
    ),
    "wrapper that does not yield": (
        """
        from mcumgrx.plugin_api import hookimpl
        @hookimpl(wrapper=True)
        def mcumgrx_commands():
            return []
            yield
        """,
        "its hook mcumgrx_commands failed: RuntimeError",
    ),
    "generator that raises": (
        """
        from mcumgrx.plugin_api import hookimpl
        @hookimpl
        def mcumgrx_commands():
            yield 1
            raise KeyError
        """,
        "returned an object of type generator instead of a list",
    ),
    "a list whose iteration raises": (
        """
        from mcumgrx.plugin_api import hookimpl
        class Odd(list):
            def __iter__(self): raise SystemExit("odd")
        @hookimpl
        def mcumgrx_commands(): return Odd([1])
        """,
        "SystemExit: odd",
    ),
    "a description whose fields raise": (
        """
        from mcumgrx.plugin_api import CliCommand, hookimpl
        class Odd(CliCommand):
            def __getattribute__(self, name): raise MemoryError(name) if name == "load" else AttributeError(name)
        @hookimpl
        def mcumgrx_commands(): return [Odd("a", "b", load="c:d")]
        """,
        "a CliCommand of its hook mcumgrx_commands cannot be read",
    ),
    "a flood": (
        """
        from mcumgrx.plugin_api import CliCommand, hookimpl
        @hookimpl
        def mcumgrx_commands(): return [CliCommand(f"a{n}", "b", load="c:d") for n in range(100_000)]
        """,
        "returned 100000 descriptions",
    ),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_broken_plugin_is_reported_and_stops_nobody(site: Site, trouble: str) -> None:
    source, expected = TROUBLE[trouble]
    target = "broken_plugin:nothing" if trouble == "no such attribute" else "broken_plugin"
    site.add("mcumgrx-a-broken", {"broken": target}, broken_plugin=source)
    site.add("mcumgrx-zebra", {"acme": "acme_plugin"}, acme_plugin=ACME, acme_parts=PARTS)
    site.add_ours()
    registry = site.registry()

    assert_ours_work(registry)
    assert record(registry, "acme").error is None
    broken = record(registry, "broken")
    assert expected in str(broken.error)
    assert broken.distribution == "mcumgrx-a-broken"
    assert broken.version == "1.2"
    assert broken.supplies == ()
    assert broken.hint is not None
    assert "pip install --upgrade mcumgrx-a-broken" in broken.hint
    assert "MCUMGRX_DISABLE_PLUGINS=broken" in broken.hint


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ('TransportPlugin("wire", "x", load="a:b")', "'wire' is taken by the plugin 'ours'"),
        ('TransportPlugin("other", "x", load="a:b", aliases=("cable",))', "'cable' is taken by the plugin 'ours'"),
        ('TransportPlugin("BLE", "x", load="a:b")', "'BLE' is not a scheme"),
        ('TransportPlugin("a b", "x", load="a:b")', "'a b' is not a scheme"),
        ('TransportPlugin("", "x", load="a:b")', "'' is not a scheme"),
        ('TransportPlugin("a\\x1b[2J", "x", load="a:b")', "its scheme cannot be 'a\\x1b[2J'"),
        ('TransportPlugin("x", "bell \\a", load="a:b")', "its summary cannot be"),
        ('TransportPlugin("x", "turned \\u202e round", load="a:b")', "its summary cannot be"),
        ('TransportPlugin("x", "x", load="a.b")', "its load cannot be 'a.b'"),
        ('TransportPlugin("x", "x", load="a:b", discover="nowhere")', "its discover cannot be"),
        ('TransportPlugin("x", "x", load="a:b", watch="nowhere")', "its watch cannot be"),
        ('TransportPlugin("x", "x", load="a:b", aliases=["y"])', "its aliases cannot be"),
        ('TransportPlugin(7, "x", load="a:b")', "its scheme cannot be 7"),
        ('GroupPlugin(0, "os2", "x", load="a:b")', "numbers below 64 belong to SMP itself"),
        ('GroupPlugin(65536, "x", "x", load="a:b")', "its id cannot be 65536"),
        ('GroupPlugin(-1, "x", "x", load="a:b")', "its id cannot be -1"),
        ('GroupPlugin(True, "x", "x", load="a:b")', "its id cannot be True"),
        ('GroupPlugin("9", "x", "x", load="a:b")', "its id cannot be '9'"),
        ('GroupPlugin(9, "x", "x", load="a:b", fills="no role")', "its fills cannot be 'no role'"),
        ('CliCommand("os echo", "x", load="a:b")', "'os' belongs to mcumgrx itself"),
        ('CliCommand("os", "x", load="a:b")', "'os' belongs to mcumgrx itself"),
        ('CliCommand("one two three", "x", load="a:b")', "one word or two"),
        ('CliCommand("Upper case", "x", load="a:b")', "one word or two"),
        ('CliCommand("two  spaces", "x", load="a:b")', "one word or two"),
        ('CliCommand("--help", "x", load="a:b")', "one word or two"),
        ('CliCommand("new\\nline", "x", load="a:b")', "its name cannot be 'new\\nline'"),
        ('CliCommand("dfu", "x", load="a:b")', "'dfu' belongs to mcumgrx itself"),
        ('CliCommand("plugins acme", "x", load="a:b")', "'plugins' belongs to mcumgrx itself"),
    ],
)
def test_a_bad_description_is_refused_and_the_rest_of_its_plugin_works(site: Site, item: str, expected: str) -> None:
    hook, good = {
        "TransportPlugin": ("mcumgrx_transports", 'TransportPlugin("good", "x", load="a:b")'),
        "GroupPlugin": ("mcumgrx_groups", 'GroupPlugin(200, "good", "x", load="a:b")'),
        "CliCommand": ("mcumgrx_commands", 'CliCommand("bad good", "x", load="a:b")'),
    }[item.partition("(")[0]]
    source = f"""
    from mcumgrx.plugin_api import CliCommand, GroupPlugin, TransportPlugin, hookimpl

    @hookimpl
    def {hook}():
        return [{item}, {good}]
    """
    site.add("mcumgrx-bad", {"bad": "bad_plugin"}, bad_plugin=source)
    site.add_ours()
    registry = site.registry()

    assert_ours_work(registry)
    bad = record(registry, "bad")
    assert expected in str(bad.error)
    assert str(bad.error).isprintable()
    assert len(bad.supplies) == 1
    assert "good" in bad.supplies[0]


def test_a_name_that_is_a_command_cannot_become_a_group_of_commands(site: Site) -> None:
    source = """
    from mcumgrx.plugin_api import CliCommand, hookimpl

    @hookimpl
    def mcumgrx_commands():
        return [CliCommand("bad", "x", load="a:b"), CliCommand("bad more", "x", load="a:b")]
    """
    site.add("mcumgrx-bad", {"bad": "bad_plugin"}, bad_plugin=source)
    registry = site.registry()
    assert list(registry.commands) == ["bad"]
    assert "taken by 'bad' of the plugin itself" in str(record(registry, "bad").error)


def test_a_role_is_filled_for_the_devices_that_it_is_meant_for(site: Site) -> None:
    source = """
    from mcumgrx.plugin_api import GroupPlugin, TransportPlugin, hookimpl

    @hookimpl
    def mcumgrx_groups():
        return [
            GroupPlugin(0, "os2", "x", load="acme_parts:Ours", fills="OsGroup"),
            GroupPlugin(100, "os3", "x", load="acme_parts:Other"),
        ]

    @hookimpl
    def mcumgrx_transports():
        return [TransportPlugin("acme", "Acme radio", load="acme_parts:Wire")]
    """
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=source, acme_parts=PARTS)
    site.add_ours()
    registry = site.registry()
    assert_ours_work(registry)
    assert record(registry, "acme").error is None
    assert record(registry, "acme").supplies == ("transport acme", "group 0 os2", "group 100 os3")
    assert registry.groups[0].name == "os"

    def of(roles: dict[type, Any] | None = None, link: str = "") -> str:
        return registry.group(OsGroup, roles, link).__module__

    assert (of(), of(link="wire"), of(link="acme")) == ("ours_parts", "ours_parts", "acme_parts")
    assert (of({OsGroup: "acme"}), of({OsGroup: "os2"}), of({OsGroup: "os"}, "acme")) == (
        "acme_parts",
        "acme_parts",
        "ours_parts",
    )
    assert of({ImageGroup: "acme"}) == "ours_parts"
    with pytest.raises(PluginError, match="no plugin 'nobody' supplies OsGroup"):
        of({OsGroup: "nobody"})

    class Mine(Group):
        pass

    with pytest.raises(PluginError, match="Mine is no OsGroup: it is derived from that, and from Group"):
        of({OsGroup: Mine})
    assert site.registry("ours").group(OsGroup).__module__ == "acme_parts"  # where ours is switched off


def test_what_belongs_to_smp_and_to_mcumgrx_is_taken_by_nobody_else(site: Site) -> None:
    source = """
    from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

    @hookimpl
    def mcumgrx_groups():
        return [GroupPlugin(63, "low", "x", load="a:b"), GroupPlugin(64, "high", "x", load="a:b")]

    @hookimpl
    def mcumgrx_commands():
        words = ["acme-two", "acme-two go", "acme", "scan", "log show", "heat"]
        return [CliCommand(word, "x", load="a:b") for word in words]
    """
    site.add("mcumgrx-acme", {"Acme_Two": "acme_plugin"}, acme_plugin=source)
    registry = site.registry()
    assert list(registry.groups) == [64]
    assert list(registry.commands) == ["acme-two"]
    error = str(record(registry, "Acme_Two").error)
    assert "the group 63: numbers below 64 belong to SMP itself" in error
    for word in ("scan", "log"):
        assert f"{word!r} belongs to mcumgrx itself; its commands begin with 'acme-two'" in error
    for word in ("acme", "heat"):
        assert f"{word!r} is not the name of the plugin; its commands begin with 'acme-two'" in error


@pytest.mark.parametrize(
    ("version", "warning"),
    [
        ("'1.0'", None),
        ("'0.9'", "it was written for version 0.9 of the plugin contract; this one is 1.0"),
        ("'1.7'", "it was written for version 1.7 of the plugin contract; this one is 1.0"),
        ("'2.0'", "it was written for version 2.0 of the plugin contract; this one is 1.0"),
        ("7", "its API_VERSION 7 is none, such as '1.0'"),
        ("'new\\nline'", "is none, such as '1.0'"),
    ],
)
def test_the_version_of_the_contract_that_a_plugin_names_is_read(site: Site, version: str, warning: str | None) -> None:
    source = textwrap.dedent(ACME) + f"\nAPI_VERSION = {version}\n"
    requires = "mcumgrx>=0.1,<2"
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, requires=requires, acme_plugin=source, acme_parts=PARTS)
    acme = record(site.registry(), "acme")
    assert (acme.error, acme.requires, len(acme.supplies)) == (None, requires, 3)
    assert (acme.api, acme.warnings) == ("", ()) if warning is None else (warning in acme.warnings[0])
    shown = " ".join(" ".join(PluginList((acme,)).lines()).split())
    assert (f"warning: {acme.warnings[0]}" in shown) if warning else "warning" not in shown


# -- names of plugins -----------------------------------------------------------------------------------------------


def test_ours_come_first_then_by_distribution_whatever_the_folder_order(site: Site) -> None:
    thief = ACME.replace('"acme", "Acme radio"', '"wire", "Stolen"')
    site.add("a-thief", {"ours": "thief_plugin", "zz": "thief_plugin"}, thief_plugin=thief)
    site.add("mcumgrx-b", {"b": "acme_plugin"}, acme_plugin=ACME, acme_parts=PARTS)
    site.add_ours()
    registry = site.registry()
    assert [plugin.distribution for plugin in registry.plugins] == ["mcumgrx", "a-thief", "a-thief", "mcumgrx-b"]
    assert registry.transports["wire"].summary == "A wire"
    stolen = [plugin for plugin in registry.plugins if plugin.name == "ours"]
    assert stolen[0].error is None
    assert "the name is taken by the plugin of mcumgrx" in str(stolen[1].error)


@pytest.mark.parametrize("name", ["a\x1b[31mb", "two words", "\u202etxet", "é", "-x", ""])
def test_a_hostile_name_is_not_loaded_and_can_be_printed(site: Site, name: str) -> None:
    point = EntryPoint(name, "never_imported", "mcumgrx")
    registry = Registry(entry_points=[point])
    (plugin,) = registry.plugins
    assert plugin.name.isprintable()
    assert "its name is not made of" in str(plugin.error)


def test_hostile_metadata_can_be_printed(site: Site) -> None:
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, version="1.0", acme_plugin=ACME, acme_parts=PARTS)
    (info,) = site.path.glob("*.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mcumgrx-\x1b[2J\nVersion: 1\x07\n", encoding="utf-8")
    (plugin,) = site.registry().plugins
    assert (plugin.distribution, plugin.version) == ("mcumgrx-\\x1b[2J", "1\\x07")
    assert plugin.error is None


def test_missing_metadata_do_not_matter(site: Site) -> None:
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=ACME, acme_parts=PARTS)
    (info,) = site.path.glob("*.dist-info")
    (info / "METADATA").unlink()
    (plugin,) = site.registry().plugins
    assert plugin.supplies
    assert plugin.version == ""


@pytest.mark.parametrize("content", [b"\xff\xfe[mcumgrx]", b"[mcumgrx]\nno equals sign\n"])
def test_an_unreadable_list_of_entry_points_stops_nobody(site: Site, content: bytes) -> None:
    site.add("unrelated", {})
    (site.path / "unrelated-1.2.dist-info" / "entry_points.txt").write_bytes(content)
    site.add("mcumgrx-odd", {})
    (site.path / "mcumgrx_odd-1.2.dist-info" / "entry_points.txt").write_bytes(content)
    site.add_ours()
    registry = site.registry()
    assert_ours_work(registry)
    assert [plugin.distribution for plugin in registry.plugins] == ["mcumgrx", "mcumgrx-odd"]
    assert "cannot be read" in str(registry.plugins[1].error)


def test_the_same_distribution_twice_on_the_path_is_loaded_once(
    site: Site, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add_ours()
    checkout = tmp_path_factory.mktemp("checkout")
    # What an editable install leaves in the checkout itself.
    egg_info = checkout / "mcumgrx.egg-info"
    egg_info.mkdir()
    (egg_info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: mcumgrx\nVersion: 1.2\n", encoding="utf-8")
    (egg_info / "entry_points.txt").write_text("[mcumgrx]\nours = ours_plugin\n", encoding="utf-8")
    for path in ([str(checkout), str(site.path)], [str(site.path), str(checkout)]):
        registry = Registry(path=path)
        assert [plugin.name for plugin in registry.plugins] == ["ours"]
        assert_ours_work(registry)


def test_the_same_entry_point_twice_is_loaded_once(site: Site) -> None:
    site.add_ours()
    point = EntryPoint("ours", "ours_plugin", "mcumgrx")
    registry = Registry(entry_points=[point, point])
    assert [plugin.error for plugin in registry.plugins] == [None]


# -- switching off --------------------------------------------------------------------------------------------------


def test_a_disabled_plugin_is_listed_but_not_imported(site: Site) -> None:
    site.add("mcumgrx-exploding", {"exploding": "exploding_plugin"}, exploding_plugin="raise RuntimeError")
    site.add_ours()
    registry = site.registry("exploding", "no-such-plugin")
    assert_ours_work(registry)
    assert record(registry, "exploding") == PluginRecord("exploding", "1.2", "mcumgrx-exploding", disabled=True)
    assert "exploding_plugin" not in sys.modules


def test_the_environment_switches_plugins_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add("mcumgrx-one", {"one-test": "acme_plugin"}, acme_plugin=ACME, acme_parts=PARTS)
    site.add("mcumgrx-two", {"two-test": "two_plugin"}, two_plugin=ACME)
    monkeypatch.setenv("MCUMGRX_DISABLE_PLUGINS", " one-test ,, two-test")
    default_registry.cache_clear()
    try:
        registry = default_registry()
        assert record(registry, "one-test").disabled
        assert record(registry, "two-test").disabled
        assert default_registry() is registry
    finally:
        default_registry.cache_clear()


def test_of_two_plugins_of_one_name_the_second_is_switched_off_alone(site: Site) -> None:
    site.add("mcumgrx-one", {"twin": "acme_plugin"}, acme_plugin=TWIN, acme_parts=PARTS)
    site.add("mcumgrx-two", {"twin": "two_plugin"}, two_plugin=TWIN)
    site.add("twin", {"twin": "three_plugin"}, three_plugin=TWIN)
    one, two, three = site.registry().plugins
    assert one.error is None
    assert "the name is taken by the plugin of mcumgrx-one" in str(two.error)
    for record_, name in ((two, "mcumgrx-two"), (three, "twin:twin")):
        assert str(record_.hint).endswith(f"switch this one off with MCUMGRX_DISABLE_PLUGINS={name}")
        rest = site.registry(name).plugins
        assert [plugin.disabled for plugin in rest] == [plugin.distribution == record_.distribution for plugin in rest]
        assert rest[0].supplies == one.supplies


def test_a_name_that_is_free_because_its_first_owner_is_switched_off(site: Site) -> None:
    site.add("mcumgrx-one", {"twin": "acme_plugin"}, acme_plugin=TWIN, acme_parts=PARTS)
    site.add("mcumgrx-two", {"twin": "two_plugin"}, two_plugin=TWIN)
    one, two = site.registry("mcumgrx-one").plugins
    assert (one.disabled, one.supplies) == (True, ())
    assert two.error is None
    assert "transport acme" in two.supplies


def test_hooks_of_another_version_are_left_alone_with_a_warning(site: Site) -> None:
    hook = """
    @hookimpl
    def mcumgrx_colours(): raise RuntimeError
    """
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=ACME + hook, acme_parts=PARTS)
    [acme] = site.registry().plugins
    assert acme.error is None
    assert acme.supplies == ("transport acme", "group 100 acme", "command acme heat")
    assert acme.warnings == ("this version of mcumgrx has no hook mcumgrx_colours, and does not ask for it",)
    assert "pip install --upgrade mcumgrx mcumgrx-acme" in str(acme.hint)


MISSING_NAME = "from mcumgrx.plugin_api import NameOfTomorrow"


@pytest.mark.parametrize(
    ("requires", "code", "hint"),
    [
        ("mcumgrx>=99", MISSING_NAME, "it was written for newer versions (mcumgrx>=99; this is "),
        ("mcumgrx (>=99,<100)", "raise TypeError", "'pip install --upgrade mcumgrx'"),
        ("mcumgrx[all] ~= 99.1 ; python_version > '3'", "import mcumgrx.tomorrow", "'pip install --upgrade mcumgrx'"),
        ("mcumgrx<0.0.1", "raise TypeError", "it was written for older versions (mcumgrx<0.0.1; this is "),
        ("mcumgrx==0.0.1", "raise TypeError", "'pip install --upgrade mcumgrx-acme'"),
        ("mcumgrx>=0.0.1", "raise TypeError", "try 'pip install --upgrade mcumgrx-acme', or"),
        ("mcumgrx", MISSING_NAME, "'pip install --upgrade mcumgrx mcumgrx-acme'"),
        ("", "import mcumgrx.plugin_api as api; api.NameOfTomorrow", "'pip install --upgrade mcumgrx mcumgrx-acme'"),
        ("mcumgrx-other>=99", "raise TypeError", "try 'pip install --upgrade mcumgrx-acme', or"),
        ("mcumgrx>=x", "raise TypeError", "try 'pip install --upgrade mcumgrx-acme', or"),
        ("", "import no_such_module", "try 'pip install --upgrade mcumgrx-acme', or"),
    ],
)
def test_a_plugin_for_another_version_names_what_to_upgrade(site: Site, requires: str, code: str, hint: str) -> None:
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, requires=requires, acme_plugin=code)
    [acme] = site.registry().plugins
    assert hint in str(acme.hint)
    assert str(acme.hint).endswith("or switch it off with MCUMGRX_DISABLE_PLUGINS=acme")


def test_what_is_imported_later_may_be_for_another_version_as_well(site: Site) -> None:
    site.add(
        "mcumgrx-acme", {"acme": "acme_plugin"}, requires="mcumgrx>=99", acme_plugin=ACME, acme_parts="raise SystemExit"
    )
    registry = site.registry()
    with pytest.raises(PluginError, match="the plugin 'acme' is broken: acme_parts cannot be imported: SystemExit"):
        registry.transport(Address.parse("acme:x"))


def test_an_error_is_blamed_on_whose_code_it_arose_in(site: Site) -> None:
    thrower = "def throw(call=None):\n    if call: call()\n    raise KeyError"
    site.add(
        "mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=ACME, acme_parts=PARTS + textwrap.indent(thrower, "    ")
    )
    registry = site.registry()
    registry.command(registry.commands["acme heat"])
    throw = sys.modules["acme_parts"].throw

    def blamed(call: Any) -> str | None:
        try:
            call()
        except Exception as error:
            found = registry.culprit(error)
            return None if found is None else found.name
        raise AssertionError

    assert blamed(throw) == "acme"
    assert blamed(lambda: throw(lambda: Address.parse(5))) is None  # type: ignore[arg-type]
    assert blamed(lambda: Address.parse(5)) is None  # type: ignore[arg-type]


# -- late import ----------------------------------------------------------------------------------------------------


def plugin_with(site: Site, hook: str, item: str) -> Registry:
    source = f"""
    from mcumgrx.plugin_api import CliCommand, GroupPlugin, TransportPlugin, hookimpl

    @hookimpl
    def {hook}():
        return [{item}]
    """
    site.add("mcumgrx-late", {"late": "late_plugin"}, late_plugin=source, late_parts=PARTS)
    return site.registry()


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ("no_such_module:Wire", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("late_parts:NoSuch", "late_parts has no 'NoSuch'"),
        ("late_parts:Other", "is not a Transport class"),
        ("late_parts:discover", "is not a Transport class"),
        ("late_parts:Unfinished", "lacks __init__, close, framing, limits, open, receive, send"),
    ],
)
def test_what_cannot_be_a_transport_is_an_error_naming_plugin_and_distribution(
    site: Site, load: str, expected: str
) -> None:
    registry = plugin_with(site, "mcumgrx_transports", f'TransportPlugin("late", "x", load="{load}")')
    assert record(registry, "late").error is None
    with pytest.raises(PluginError, match="the plugin 'late' is broken") as raised:
        registry.transport(Address.parse("late:x"))
    assert expected in str(raised.value)
    assert (raised.value.name, raised.value.distribution) == ("late", "mcumgrx-late")
    assert "pip install --upgrade mcumgrx-late" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("load", "number", "expected"),
    [
        ("late_parts:Wire", 0, "is not a Group class"),
        ("late_parts:Other", 0, "is no OsGroup of mcumgrx.contracts"),
        ("late_parts:Narrow", 0, "lacks reset"),
    ],
)
def test_what_cannot_be_the_group_is_an_error(site: Site, load: str, number: int, expected: str) -> None:
    registry = plugin_with(
        site, "mcumgrx_groups", f'GroupPlugin({number}, "late", "x", load="{load}", fills="OsGroup")'
    )
    with pytest.raises(PluginError, match=expected):
        registry.group(OsGroup)


@pytest.mark.parametrize("load", ["late_parts:plain", "late_parts:Other"])
def test_what_is_not_made_with_command_is_an_error(site: Site, load: str) -> None:
    registry = plugin_with(site, "mcumgrx_commands", f'CliCommand("late", "x", load="{load}")')
    with pytest.raises(PluginError, match="not a function made with"):
        registry.command(registry.commands["late"])


def test_a_bug_in_a_transport_is_the_plugins_and_its_refusal_the_users(site: Site) -> None:
    site.add_ours()
    registry = site.registry()
    with pytest.raises(UsageError, match="that wire cannot be"):
        registry.transport(Address.parse("wire:bad"))
    with pytest.raises(PluginError, match="cannot make a transport of 'wire:bug': KeyError"):
        registry.transport(Address.parse("wire:bug"))
    assert registry.transport(Address.parse("cable:x")).address.scheme == "cable"  # type: ignore[attr-defined]


def test_a_group_class_is_its_own(site: Site) -> None:
    class Mine(Group):
        pass

    assert Registry(entry_points=[]).group(Mine) is Mine


def test_plugins_from_before_the_contract_work(site: Site) -> None:
    site.add(
        "mcumgrx-old",
        {"old": "old_plugin"},
        old_plugin="""
    from mcumgrx.plugin_api import *

    class Ask(Command):
        group, command = 70, 1
        def parse(self, fields): return None

    @hookimpl
    def mcumgrx_commands():
        return [CommandPlugin("old go", "Go", load="old_plugin:go")]

    @command(needs_device=False)
    async def go(context: CommandContext):
        return Ask.facts.number
    """,
    )
    registry = site.registry()
    assert record(registry, "old").error is None
    function, spec = registry.command(registry.commands["old go"])
    assert (function.__name__, spec.needs_device) == ("go", False)


# -- what is missing ------------------------------------------------------------------------------------------------


def test_an_unknown_scheme_lists_the_known_ones_and_plugins_that_do_not_work(site: Site) -> None:
    site.add("mcumgrx-broken", {"radio": "broken_plugin"}, broken_plugin="import no_such_module_anywhere")
    site.add_ours()
    with pytest.raises(UsageError, match="'ble:'") as raised:
        site.registry().transport(Address.parse("ble:Widget"))
    hint = str(raised.value.hint)
    assert "known are cable:, wire: (for example wire:x)" in hint
    assert "radio (broken)" in hint


def test_the_scheme_of_a_disabled_plugin_says_so(site: Site) -> None:
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=ACME, acme_parts=PARTS)
    site.add_ours()
    with pytest.raises(PluginError, match="'acme' is disabled") as raised:
        site.registry("acme").transport(Address.parse("acme:x"))
    assert "MCUMGRX_DISABLE_PLUGINS" in str(raised.value.hint)


def test_without_plugins_the_hint_says_how_to_get_them() -> None:
    registry = Registry(entry_points=[])
    assert registry.plugins == ()
    with pytest.raises(PluginError) as transport:
        registry.transport(Address.parse("sim:"))
    with pytest.raises(PluginError, match="ImageGroup") as group:
        registry.group(ImageGroup)
    assert "pip install" in str(transport.value.hint)
    assert "pip install" in str(group.value.hint)


def test_a_role_is_a_class_of_contracts_not_any_of_that_name(site: Site) -> None:
    site.add_ours()

    class Imitation:
        pass

    Imitation.__name__ = "OsGroup"
    with pytest.raises(PluginError, match="no plugin supplies OsGroup"):
        site.registry().group(Imitation)


# -- our own --------------------------------------------------------------------------------------------------------


def declared() -> dict[str, str]:
    """Our entry points as pyproject.toml has them."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        found: dict[str, str] = tomllib.load(stream)["project"]["entry-points"]["mcumgrx"]
    return found


def test_all_our_plugins_work() -> None:
    registry = Registry(entry_points=[EntryPoint(name, value, "mcumgrx") for name, value in declared().items()])
    assert {plugin.name: plugin.error for plugin in registry.plugins} == dict.fromkeys(declared())
    for transport in registry.transports.values():
        registry.resolve(transport, transport.load)
        for load in (transport.discover, transport.watch):
            if load is not None:
                registry.resolve(transport, load)
    for group in registry.groups.values():
        registry.resolve(group, group.load)
    for command in registry.commands.values():
        function, spec = registry.command(command)
        assert function.__doc__, command.name
        assert spec.epilog, f"{command.name} shows no example"
    assert registry.group(OsGroup).__module__ == "mcumgrx_plugins.os.group"
    assert registry.group(ImageGroup).__module__ == "mcumgrx_plugins.image.group"
    assert {name.split(" ")[0] for name in registry.commands} <= RESERVED_COMMANDS


def test_ours_are_installed_and_loaded_once() -> None:
    """Also where the checkout is on the module path beside the installation that points to it."""
    registry = Registry(path=[*sys.path, str(ROOT)])
    ours = [plugin for plugin in registry.plugins if plugin.distribution == "mcumgrx"]
    if not ours:
        pytest.skip("mcumgrx is not installed: pip install -e .")
    assert len({plugin.name for plugin in ours}) == len(ours)
    assert [plugin.error for plugin in ours] == [None] * len(ours)


def test_loading_all_our_plugins_imports_nothing_heavy() -> None:
    program = f"""
import sys
from importlib.metadata import EntryPoint
from mcumgrx.registry import Registry
registry = Registry(entry_points=[EntryPoint(n, v, "mcumgrx") for n, v in {declared()!r}.items()])
assert not [plugin.error for plugin in registry.plugins if plugin.error], registry.plugins
for command in registry.commands.values():
    if command.name.split(" ")[0] in ("os", "image"):
        registry.command(command)
heavy = {{"asyncio", "bleak", "serial", "cbor2", "rich", "click"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr


def environment() -> dict[str, str]:
    """For a fresh interpreter, that it finds what this one finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


# -- health checks ----------------------------------------------------------------------------------------------------

CHECKS = """
    from mcumgrx.plugin_api import CheckPlugin, hookimpl

    @hookimpl
    def mcumgrx_checks():
        return {checks}

    async def well(client, image):
        return None
"""


def test_checks_are_supplied_and_kept_apart(site: Site) -> None:
    site.add_ours()
    good = '[CheckPlugin("acme heater", "Warm?", load="acme_plugin:well")]'
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=CHECKS.format(checks=good))
    site.add("mcumgrx-acme2", {"acme2": "acme2_plugin"}, acme2_plugin=CHECKS.format(checks="1 / 0"))
    registry = site.registry()
    assert list(registry.checks) == ["acme heater"]
    assert record(registry, "acme").supplies == ("check acme heater",)
    assert "its hook mcumgrx_checks failed: ZeroDivisionError" in (record(registry, "acme2").error or "")
    assert site.registry("acme").checks == {}
    plugin = registry.checks["acme heater"]
    assert getattr(registry.resolve(plugin, plugin.load), "__name__", "") == "well"
    assert_ours_work(registry)


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ('CheckPlugin("heater", "x", load="acme_plugin:well")', "its name begins with that of the plugin, 'acme'"),
        ('CheckPlugin("acme Heater", "x", load="acme_plugin:well")', "a name is one word or two"),
        ('CheckPlugin("acme", "x", load="acme_plugin")', "its load cannot be 'acme_plugin'"),
        ('CheckPlugin("acme", 3, load="acme_plugin:well")', "its summary cannot be 3"),
        ('"acme"', "not CheckPlugin"),
        (
            'CheckPlugin("acme", "x", load="a:b"), CheckPlugin("acme", "y", load="a:b")',
            "the name is taken by the plugin itself",
        ),
    ],
)
def test_a_check_that_cannot_be_taken_over(site: Site, check: str, problem: str) -> None:
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=CHECKS.format(checks=f"[{check}]"))
    assert problem in (record(site.registry(), "acme").error or "")


@pytest.mark.parametrize("load", ["acme_plugin:gone", "acme_gone:well", "acme_plugin:__name__"])
def test_a_check_that_is_none_names_its_plugin(site: Site, load: str) -> None:
    check = f'[CheckPlugin("acme", "x", load="{load}")]'
    site.add("mcumgrx-acme", {"acme": "acme_plugin"}, acme_plugin=CHECKS.format(checks=check))
    registry = site.registry()
    plugin = registry.checks["acme"]
    with pytest.raises(PluginError, match="'acme' is broken"):
        registry.resolve(plugin, plugin.load)
