"""Finds the plugins, keeps them apart, and says what each supplies and what is wrong with it.

The one wrapper around pluggy. Entry points of the group `mcumgrx` are loaded and asked one at a time, our own first,
then by the name of the distribution, so that no plugin can stop or displace another. What a plugin's `load` names is
imported when somebody uses it; importing this module imports neither asyncio nor CBOR. Opening links is the business
of `session`, showing the list that of the command line.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pluggy

from .errors import ErrorCode, McumgrError, PluginError, UsageError
from .isolation import is_wanted, printable, said
from .plugin_api import API_VERSION, PROJECT, CheckPlugin, CliCommand, CliSpec, GroupPlugin, Hooks, TransportPlugin
from .repair import OURS, SWITCH, other_version, repair

if TYPE_CHECKING:
    from .address import Address
    from .group import Group
    from .plugin_api import CliFunction
    from .transport import Transport

ENTRY_POINTS = "mcumgrx"
"""The entry-point group that plugins are found in."""

RESERVED_COMMANDS = frozenset(
    """
    cache capture config crash demo device dfu doctor enum fleet fs help image log os plugins raw run scan settings
    shell sim split stat transport update zephyr
    """.split()  # noqa: SIM905 - a list of them would fill a page
)
"""First words of commands that belong to mcumgrx and its own plugins, today or some day: no other plugin has them."""

_FIRST_OF_APPLICATIONS = 64

_OUR_DISTRIBUTION = "mcumgrx"

_PLUGIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_COMMAND = re.compile(r"[a-z][a-z0-9-]*( [a-z][a-z0-9-]*)?")
_LOAD = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)

Description = TransportPlugin | GroupPlugin | CliCommand | CheckPlugin
Roles = Mapping[type, "type[Group] | str"]
D = TypeVar("D", bound=Description)


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """One plugin as found, whether it works or not.

    Attributes:
        name: of the entry point; like every text here safe to print.
        version: of the distribution; empty when its metadata do not tell.
        supplies: what was taken over from it, such as `transport serial`, `group 0 os`, `command os echo`.
        error: what is wrong with it, or None. The parts in `supplies` work all the same.
        disabled: switched off by the user, and not even imported.
        warnings: what of it is left alone; it works without.
        requires: which mcumgrx its distribution wants, as `mcumgrx>=1,<2`; empty where it does not say.
        api: the version of the plugin contract that it names by `API_VERSION`; empty for this one.
    """

    name: str
    version: str
    distribution: str
    supplies: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
    disabled: bool = False
    warnings: tuple[str, ...] = ()
    requires: str = ""
    api: str = ""

    def fault(self, problem: str, hint: str | None = None) -> PluginError:
        """The error for what it has done wrong, or cannot do."""
        return PluginError(problem, name=self.name, distribution=self.distribution or None, hint=hint)


class Registry:
    """All plugins of this Python environment.

    Arguments:
        disabled: plugins that are not to be loaded, by name, by distribution, or as `distribution:name`.
        entry_points: used instead of those that the installed distributions declare.
        path: folders to look for distributions in, instead of `sys.path`.

    A broken plugin never raises here: its trouble is in `plugins`, and all others work.
    """

    def __init__(
        self,
        *,
        disabled: Iterable[str] = (),
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
        path: Sequence[str] | None = None,
    ) -> None:
        self._tables: dict[type[Description], dict[Any, Any]] = {kind: {} for kind in _HOOKS.values()}
        self.transports: Mapping[str, TransportPlugin] = MappingProxyType(self._tables[TransportPlugin])
        """The transports by scheme; one with aliases stands under each of them too."""
        self.groups: Mapping[int, GroupPlugin] = MappingProxyType(self._tables[GroupPlugin])
        """The command groups by number."""
        self.commands: Mapping[str, CliCommand] = MappingProxyType(self._tables[CliCommand])
        """The plugins' commands by name, which is one word or two."""
        self.checks: Mapping[str, CheckPlugin] = MappingProxyType(self._tables[CheckPlugin])
        """The plugins' health checks by name."""
        self._roles: dict[str, list[GroupPlugin]] = {}
        self._owners: dict[Description, PluginRecord] = {}
        self._packages: dict[str, PluginRecord] = {}  # those of other distributions, by the name they are imported by
        self._records: list[PluginRecord] = []
        found = _found(path) if entry_points is None else [_Found.of(point) for point in entry_points]
        self._load(found, set(disabled))

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def plugins(self) -> tuple[PluginRecord, ...]:
        """Every plugin that was found, in the order in which they were loaded."""
        return tuple(self._records)

    # -- what it is for --------------------------------------------------------------------------------------------

    def transport(self, address: Address) -> Transport:
        """The transport for `address`, not yet open.

        Raises `UsageError` for an unknown scheme or an address that the transport cannot take, `PluginError` when the
        plugin is broken.
        """
        plugin = self.transports.get(address.scheme)
        if plugin is None:
            raise self._unknown_scheme(address)
        kind = cast("type[Transport]", self.resolve(plugin, plugin.load))
        try:
            return kind(address)
        except McumgrError:
            raise
        except BaseException as error:
            if is_wanted(error):
                raise
            raise self._broken(plugin, f"cannot make a transport of {str(address)!r}: {said(error)}", error) from error

    def group(self, kind: type, roles: Roles | None = None, link: str = "") -> type[Group]:
        """The class for `kind`: a `Group` class is its own, a role of `mcumgrx.contracts` is filled by a plugin.

        Of several, the one that `roles` names; else that of the plugin whose link, by its scheme, leads to the device;
        else the first one, which is ours. Raises `PluginError` when there is none.
        """
        from .group import Group

        if issubclass(kind, Group):
            return kind
        chosen = (roles or {}).get(kind)
        if isinstance(chosen, type):
            if not issubclass(chosen, kind) or not issubclass(chosen, Group):
                raise PluginError(f"{chosen.__name__} is no {kind.__name__}: it is derived from that, and from Group")
            return chosen
        plugins = self._roles.get(kind.__name__, []) if kind.__module__ == "mcumgrx.contracts" else []
        if chosen is not None:
            plugins = [one for one in plugins if chosen in (one.name, self._owner(one))]
        if not plugins:
            who = "no plugin" if chosen is None else f"no plugin {chosen!r}"
            raise PluginError(f"{who} supplies {kind.__name__}", hint=self._not_loaded() or _NOT_INSTALLED)
        transport = self.transports.get(link)
        beside = [one for one in plugins if transport is not None and self._owner(one) == self._owner(transport)]
        plugin = (beside or plugins)[0]
        found = cast("type[Group]", self.resolve(plugin, plugin.load))
        if not issubclass(found, kind):
            raise self._broken(plugin, f"{plugin.load} is no {kind.__name__} of mcumgrx.contracts")
        return found

    def error_table(self, group: int) -> type[ErrorCode] | None:
        """The codes of a group, or None where no plugin tells them."""
        plugin = self.groups.get(group)
        return None if plugin is None else plugin.error_table()

    def command(self, plugin: CliCommand) -> tuple[CliFunction, CliSpec]:
        """The function of a command and its parameters. Raises `PluginError`."""
        function = cast("CliFunction", self.resolve(plugin, plugin.load))
        return function, cast(CliSpec, getattr(function, "__mcumgrx_command__"))  # noqa: B009 - mypy

    def resolve(self, plugin: Description, load: str) -> object:
        """Import what `load`, one of the names in `plugin`, stands for, and check that it is of the right kind.

        Raises `PluginError` naming plugin and distribution.
        """
        module_name, _, attribute = load.partition(":")
        try:
            module = importlib.import_module(module_name)
        except BaseException as error:
            if is_wanted(error):
                raise
            raise self._broken(plugin, f"{module_name} cannot be imported: {said(error)}", error) from error
        try:
            value: object = getattr(module, attribute)
        except BaseException as error:  # a module may have a __getattr__ of its own
            if is_wanted(error):
                raise
            raise self._broken(plugin, f"{module_name} has no {attribute!r}", error) from error
        try:
            problem = _unfit(plugin, load, value)
        except BaseException as error:  # and a class attributes that raise
            if is_wanted(error):
                raise
            problem = f"cannot be looked at: {said(error)}"
        if problem is not None:
            raise self._broken(plugin, f"{load} {problem}")
        return value

    def fault(self, plugin: Description, problem: str) -> PluginError:
        """The error for what this plugin has done wrong, which names it."""
        record = self._owners.get(plugin)
        return PluginError(problem) if record is None else record.fault(f"in the plugin {record.name!r} {problem}")

    def culprit(self, error: BaseException) -> PluginRecord | None:
        """The plugin of another distribution in whose code `error` arose, or None where it was ours or nobody's."""
        ours = ("mcumgrx", "mcumgrx_plugins")
        blamed: PluginRecord | None = None
        trace = error.__traceback__
        while trace is not None:
            name = trace.tb_frame.f_globals.get("__name__")
            top = name.partition(".")[0] if isinstance(name, str) else ""
            if top in self._packages:
                blamed = self._packages[top]
            elif top in ours:
                blamed = None
            trace = trace.tb_next
        return blamed

    # -- loading ---------------------------------------------------------------------------------------------------

    def _load(self, found: list[_Found], disabled: set[str]) -> None:
        found.sort(key=lambda one: (not one.ours, one.key, one.point.name if one.point else "", one.value))
        seen: dict[str, _Found] = {}
        for one in found:
            loading = _Loading(one)
            if one.trouble is not None:
                loading.errors.append(one.trouble)
            elif not _PLUGIN_NAME.fullmatch(one.name):
                loading.errors.append("its name is not made of letters, digits, '.', '_' and '-'")
            elif one.is_named_in(disabled):
                seen.setdefault(one.name, one)
                loading.disabled = True
            elif one.name not in seen or seen[one.name].is_named_in(disabled):
                seen[one.name] = one
                self._ask(loading)
            elif (one.key, one.value) == (seen[one.name].key, seen[one.name].value):
                continue  # the same one found twice: an editable install and its checkout, a folder named twice
            else:
                loading.conflict(f"the name is taken by the plugin of {seen[one.name].distribution}")
            self._keep(loading)

    def _keep(self, loading: _Loading) -> None:
        record = loading.record()
        self._records.append(record)
        for description in loading.taken:
            self._owners[description] = record
        if not loading.found.ours:
            modules = [loading.found.value, *(module for one in loading.taken for module in _modules(one))]
            for module in modules:
                self._packages.setdefault(re.split("[.:]", module.strip(), maxsplit=1)[0], record)
        if record.error:
            _log(record)

    def _ask(self, loading: _Loading) -> None:
        """Import one plugin and take over what its hooks return."""
        point = loading.found.point
        assert point is not None
        # A manager for each plugin: nothing that one does (a wrapper, a failure) can reach another's hooks.
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Hooks)
        with loading.guarded("it cannot be imported"):
            module = point.load()
            loading.look_at(module)
            with loading.guarded("its hooks do not fit this version of mcumgrx"):
                manager.register(module, name=loading.found.name)
                for name in _unknown_hooks(manager, module):
                    loading.warnings.append(f"this version of mcumgrx has no hook {name}, and does not ask for it")
                for hook, kind in _HOOKS.items():
                    self._take_all(loading, getattr(manager.hook, hook), kind)

    def _take_all(self, loading: _Loading, hook: pluggy.HookCaller, kind: type[Description]) -> None:
        """What the plugin's hook returns, without what is no such description."""
        with loading.guarded(f"its hook {hook.name} failed"):
            answers = hook()
            # What a wrapper of the plugin's own makes of them can be anything.
            for answer in answers if isinstance(answers, list) else [answers]:
                if not isinstance(answer, (list, tuple)):
                    loading.errors.append(f"its hook {hook.name} returned {_kind(answer)} instead of a list")
                    continue
                if len(answer) > _MOST_DESCRIPTIONS:
                    loading.errors.append(f"its hook {hook.name} returned {len(answer)} descriptions")
                    continue
                for item in answer:
                    if not isinstance(item, kind):
                        problem = f"returned {_kind(item)} in the list, not {kind.__name__}"
                        loading.errors.append(f"its hook {hook.name} {problem}")
                        continue
                    with loading.guarded(f"a {kind.__name__} of its hook {hook.name} cannot be read"):
                        self._take(loading, _plain(item, kind))

    def _take(self, loading: _Loading, plugin: Description) -> None:
        """Take over one description, if nothing is wrong with it and nobody has what it wants."""
        values = {field.name: getattr(plugin, field.name) for field in dataclasses.fields(plugin)}
        what = f"the {_NOUNS[type(plugin)]} {_shown(next(iter(values.values())))}"
        problems = [f"its {name} cannot be {_shown(value)}" for name, value in values.items() if not _FITS[name](value)]
        problems = problems or _refusals(plugin, loading.found)
        loading.errors += [f"{what}: {problem}" for problem in problems]
        clashes = [] if problems else list(self._clashes(plugin))
        for clash in clashes:
            loading.conflict(f"{what}: {clash}")
        if problems or clashes:
            return
        for key, supply in _keys(plugin).items():
            self._tables[type(plugin)].setdefault(key, plugin)
            loading.supplies.append(supply)
        if isinstance(plugin, GroupPlugin) and plugin.fills is not None:
            self._roles.setdefault(plugin.fills, []).append(plugin)
        loading.taken.append(plugin)

    def _clashes(self, plugin: Description) -> Iterator[str]:
        """What another plugin has that this one wants."""
        if isinstance(plugin, CliCommand):
            first = plugin.name.split(" ")[0]
            for name, other in self.commands.items():
                # "acme" cannot be both a command and a group of commands.
                if name in (plugin.name, first) or (plugin.name == first and name.startswith(f"{first} ")):
                    yield f"the name is taken by {name!r} of the plugin {self._owner_name(other)}"
                    return
        elif not isinstance(plugin, GroupPlugin) or plugin.fills is None:
            # Another implementation of one of SMP's own groups stands beside ours.
            table = self._tables[type(plugin)]
            for key in _keys(plugin):
                if key in table:
                    called = {GroupPlugin: "the number", CheckPlugin: "the name"}.get(type(plugin), repr(key))
                    yield f"{called} is taken by the plugin {self._owner_name(table[key])}"

    # -- errors ----------------------------------------------------------------------------------------------------

    def _owner(self, plugin: Description) -> str:
        record = self._owners.get(plugin)
        return "" if record is None else record.name

    def _owner_name(self, plugin: Description) -> str:
        record = self._owners.get(plugin)
        return repr(record.name) if record is not None else "itself"

    def _broken(self, plugin: Description, problem: str, error: BaseException | None = None) -> PluginError:
        record = self._owners.get(plugin)
        if record is None:
            return PluginError(problem)
        requires = () if error is None else (record.requires,)
        hint = repair(record.name, record.distribution, other_version(record.distribution, requires, error))
        return record.fault(f"the plugin {record.name!r} is broken: {problem}", hint)

    def _unknown_scheme(self, address: Address) -> McumgrError:
        from .address import meant_address

        scheme = address.scheme
        if not self.transports:
            return PluginError("no plugin supplies a transport", hint=self._not_loaded() or _NOT_INSTALLED)
        for record in self._records:
            if record.name == scheme and record.disabled:
                return record.fault(
                    f"the plugin {scheme!r} is disabled",
                    f"take it out of MCUMGRX_DISABLE_PLUGINS to use {scheme}: addresses",
                )
        known = ", ".join(f"{name}:" for name in sorted(self.transports))
        examples = [plugin.example for plugin in dict.fromkeys(self.transports.values()) if plugin.example]
        hint = f"known are {known}" + (f" (for example {examples[0]})" if examples else "")
        if meant := meant_address(str(address)):
            return UsageError(f"{str(address)!r} is not a device address", hint=meant)
        return UsageError(
            f"no plugin knows addresses that begin with '{scheme}:'",
            hint="; ".join(part for part in (hint, self._not_loaded()) if part),
        )

    def _not_loaded(self) -> str | None:
        """What a person whose plugin is missing should know, or None when all is well."""
        names = [
            f"{record.name} ({'disabled' if record.disabled else 'broken'})"
            for record in self._records
            if record.disabled or record.error
        ]
        return f"not all plugins work: {', '.join(names)}; see 'mcumgrx plugins list'" if names else None


_NOT_INSTALLED = "its own plugins come with an installed mcumgrx: pip install mcumgrx, or -e . in a checkout"


@functools.cache
def default_registry() -> Registry:
    """The registry of this environment, made once; `MCUMGRX_DISABLE_PLUGINS=a,b` switches plugins off."""
    names = os.environ.get("MCUMGRX_DISABLE_PLUGINS", "").split(",")
    return Registry(disabled=[name.strip() for name in names if name.strip()])


# -- finding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """An entry point and whose it is; or, with `trouble`, a distribution whose entry points cannot be read."""

    point: importlib.metadata.EntryPoint | None
    distribution: str
    version: str
    trouble: str | None = None

    @classmethod
    def of(cls, point: importlib.metadata.EntryPoint) -> _Found:
        name, version = _name_and_version(point.dist) if point.dist is not None else ("", "")
        return cls(point, name, version)

    @property
    def requires(self) -> tuple[str, ...]:
        """The requirements of its distribution."""
        try:
            return tuple(self.point.dist.requires or ()) if self.point is not None and self.point.dist else ()
        except Exception:  # as with all metadata
            return ()

    @property
    def key(self) -> str:
        """The distribution's name in the form by which names are compared (PEP 503)."""
        return re.sub(r"[-_.]+", "-", self.distribution).lower()

    @property
    def ours(self) -> bool:
        return self.key == _OUR_DISTRIBUTION

    @property
    def stranger(self) -> bool:
        """Whether it comes from another distribution: neither with mcumgrx, nor from who has made the registry."""
        return not self.ours and self.point is not None and self.point.dist is not None

    def is_named_in(self, names: set[str]) -> bool:
        """By its own name, that of its distribution, or both: two plugins can have one name."""
        spelled = {
            self.name,
            self.distribution,
            self.key,
            f"{self.distribution}:{self.name}",
            f"{self.key}:{self.name}",
        }
        return not names.isdisjoint(spelled)

    @property
    def word(self) -> str:
        """The first word of its commands: its name, in the letters that commands have."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())

    @property
    def alone(self) -> str:
        """What names it, and no other plugin of the same name."""
        return f"{self.key}:{self.name}" if self.key == self.name.lower() else self.key

    @property
    def name(self) -> str:
        return self.point.name if self.point is not None else "?"

    @property
    def value(self) -> str:
        return self.point.value if self.point is not None else ""


def _found(path: Sequence[str] | None) -> list[_Found]:
    """All entry points of our group.

    Not by `importlib.metadata.entry_points`, which fails as a whole when one distribution's file cannot be read.
    """
    distributions = (
        importlib.metadata.distributions() if path is None else importlib.metadata.distributions(path=list(path))
    )
    found: list[_Found] = []
    keys: set[str] = set()
    for distribution in distributions:
        trouble = None
        points: list[importlib.metadata.EntryPoint] = []
        try:
            text = distribution.read_text("entry_points.txt")
            if not text or ENTRY_POINTS not in text:
                continue  # the common case, without parsing
            points = list(distribution.entry_points.select(group=ENTRY_POINTS))
        except Exception as error:
            trouble = f"its list of entry points cannot be read: {said(error)}"
        name, version = _name_and_version(distribution)
        if trouble is not None and ENTRY_POINTS in name.lower():  # else most likely none of our business
            found.append(_Found(None, name, version, trouble))
        mine = [_Found(point, name, version) for point in points]
        # The first on the path counts, as in an import: an editable install and the egg-info in its checkout, say.
        if mine and mine[0].key not in keys:
            keys.add(mine[0].key)
            found += mine
    return found


def _name_and_version(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    try:
        metadata = distribution.metadata
        return str(metadata["Name"] or ""), str(metadata["Version"] or "")
    except Exception:  # missing or undecodable metadata, differently with each Python version
        return "", ""


# -- checking ---------------------------------------------------------------------------------------------------------


class _Loading:
    """One plugin while it is loaded."""

    def __init__(self, found: _Found) -> None:
        self.found = found
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.api = ""
        self.supplies: list[str] = []
        self.taken: list[Description] = []
        self.disabled = False
        self._conflicting = False
        self._raised: BaseException | None = None

    @contextmanager
    def guarded(self, problem: str) -> Iterator[None]:
        """For a `with` block of the plugin's own code: whatever that raises is noted as this problem."""
        try:
            yield
        except BaseException as error:
            if is_wanted(error):
                raise
            self._raised = error
            self.errors.append(f"{problem}: {said(error)}")

    def look_at(self, module: object) -> None:
        """Note which version of the contract it was written for, where it tells."""
        wanted = getattr(module, "API_VERSION", API_VERSION)
        if wanted == API_VERSION:
            return
        self.api = str(wanted)
        numbers = re.fullmatch(r"(\d+)\.(\d+)", self.api)
        ours = tuple(int(part) for part in API_VERSION.split("."))
        if numbers is None:
            self.warnings.append(f"its API_VERSION {_shown(wanted)} is none, such as {API_VERSION!r}")
        elif (int(numbers[1]), int(numbers[2])) > ours or int(numbers[1]) != ours[0]:
            self.warnings.append(
                f"it was written for version {self.api} of the plugin contract; this one is {API_VERSION}"
            )

    def conflict(self, problem: str) -> None:
        """Somebody else has what it wants."""
        self._conflicting = True
        self.errors.append(problem)

    def record(self) -> PluginRecord:
        name, distribution = printable(self.found.name), printable(self.found.distribution)
        return PluginRecord(
            name=name,
            version=printable(self.found.version),
            distribution=distribution,
            supplies=tuple(self.supplies),
            error=_joined(self.errors),
            hint=self._hint(name, distribution),
            disabled=self.disabled,
            warnings=tuple(printable(one) for one in self.warnings),
            requires=printable(next((one for one in self.found.requires if OURS.match(one)), "")),
            api=printable(self.api),
        )

    def _hint(self, name: str, distribution: str) -> str | None:
        if self._conflicting and self._raised is None:
            return f"uninstall one of the two, or switch this one off with {SWITCH}={printable(self.found.alone)}"
        if not self.errors and not self.warnings:
            return None
        requires = self.found.requires
        other = other_version(distribution, requires, self._raised, newer=bool(self.warnings))
        return repair(name, distribution, other) if self.errors else other


_MOST_TEXTS = 10


def _joined(errors: list[str]) -> str | None:
    more = [f"and {len(errors) - _MOST_TEXTS} more"] if len(errors) > _MOST_TEXTS else []
    return printable("; ".join([*errors[:_MOST_TEXTS], *more])) or None


_MOST_DESCRIPTIONS = 1000
"""Of one hook. No plugin has as many; one that has gone wrong may."""


def _plain(item: D, kind: type[D]) -> D:
    """The description as this class and with plain texts, whatever a class derived from it does when it is asked."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = getattr(item, field.name)
        values[field.name] = str.__str__(value) if isinstance(value, str) else value
    return kind(**values)


def _modules(plugin: Description) -> list[str]:
    texts = [plugin.load]
    if isinstance(plugin, TransportPlugin):
        texts += [text for text in (plugin.discover, plugin.watch) if text is not None]
    if isinstance(plugin, GroupPlugin) and plugin.errors is not None:
        texts.append(plugin.errors)
    return texts


def _unknown_hooks(manager: pluggy.PluginManager, module: object) -> list[str]:
    """Hooks of the plugin that this version does not have, which are not called."""
    names = [caller.name for caller in manager.get_hookcallers(module) or ()]
    return [name for name in names if not getattr(manager.hook, name).has_spec()]


_HOOKS: dict[str, type[Description]] = {
    "mcumgrx_transports": TransportPlugin,
    "mcumgrx_groups": GroupPlugin,
    "mcumgrx_commands": CliCommand,
    "mcumgrx_checks": CheckPlugin,
}
_NOUNS = {TransportPlugin: "transport", GroupPlugin: "group", CliCommand: "command", CheckPlugin: "check"}


def _keys(plugin: Description) -> dict[str | int, str]:
    """What it is known by, and what it is then said to supply."""
    if isinstance(plugin, TransportPlugin):
        return {scheme: f"transport {scheme}" for scheme in (plugin.scheme, *plugin.aliases)}
    if isinstance(plugin, GroupPlugin):
        return {plugin.id: f"group {plugin.id} {plugin.name}"}
    return {plugin.name: f"{_NOUNS[type(plugin)]} {plugin.name}"}


def _is_line(value: object) -> bool:
    """Text of one line, without control characters, which could play tricks with a terminal."""
    return isinstance(value, str) and value.isprintable()


def _is_loadable(value: object) -> bool:
    return isinstance(value, str) and _LOAD.fullmatch(value) is not None


def _is_loadable_or_none(value: object) -> bool:
    return value is None or _is_loadable(value)


# What the fields of descriptions can be.
_FITS: dict[str, Callable[[Any], bool]] = {
    "scheme": _is_line,
    "name": _is_line,
    "summary": _is_line,
    "example": _is_line,
    "load": _is_loadable,
    "discover": _is_loadable_or_none,
    "watch": _is_loadable_or_none,
    "errors": _is_loadable_or_none,
    "aliases": lambda value: isinstance(value, tuple) and all(isinstance(one, str) for one in value),
    "id": lambda value: type(value) is int and 0 <= value <= 0xFFFF,
    "fills": lambda value: value is None or (isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None),
}


def _refusals(plugin: Description, found: _Found) -> list[str]:
    """Why this plugin may not supply it, though each of its fields fits."""
    if isinstance(plugin, TransportPlugin):
        rule = "is not a scheme: lower-case letters, digits, '+', '.' and '-'"
        return [f"{one!r} {rule}" for one in (plugin.scheme, *plugin.aliases) if not _SCHEME.fullmatch(one)]
    if isinstance(plugin, GroupPlugin):
        of_smp = plugin.fills is None and plugin.id < _FIRST_OF_APPLICATIONS and found.stranger
        return [f"numbers below {_FIRST_OF_APPLICATIONS} belong to SMP itself"] if of_smp else []
    if not _COMMAND.fullmatch(plugin.name):
        return ["a name is one word or two, of lower-case letters, digits and '-'"]
    first = plugin.name.split(" ")[0]
    if not found.stranger:
        return []
    if isinstance(plugin, CheckPlugin):
        return [] if first == found.word else [f"its name begins with that of the plugin, {found.word!r}"]
    if first == found.word and first not in RESERVED_COMMANDS:
        return []
    whose = "belongs to mcumgrx itself" if first in RESERVED_COMMANDS else "is not the name of the plugin"
    return [f"{first!r} {whose}; its commands begin with {found.word!r}"]


def _unfit(plugin: Description, load: str, value: object) -> str | None:
    """Why `value` cannot be what `load` of this plugin should name, or None if it can."""
    if isinstance(plugin, TransportPlugin):
        if load in (plugin.discover, plugin.watch) and load != plugin.load:
            return None if callable(value) else "is not a function"
        from .transport import Transport

        return _unfit_class(value, Transport)
    if isinstance(plugin, GroupPlugin):
        from .group import Group

        return _unfit_class(value, Group)
    if isinstance(plugin, CheckPlugin):
        return None if callable(value) else "is not a function"
    if not callable(value) or not isinstance(getattr(value, "__mcumgrx_command__", None), CliSpec):
        return "is not a function made with mcumgrx.plugin_api.cli_command"
    return None


def _unfit_class(value: object, base: type) -> str | None:
    if not isinstance(value, type) or not issubclass(value, base):
        return f"is not a {base.__name__} class"
    missing: Iterable[str] = getattr(value, "__abstractmethods__", ())
    return f"lacks {', '.join(sorted(missing))}" if missing else None


# -- words ------------------------------------------------------------------------------------------------------------


def _log(record: PluginRecord) -> None:
    import logging  # only now: it costs every start a few milliseconds

    logging.getLogger("mcumgrx.registry").info("plugin %s (%s): %s", record.name, record.distribution, record.error)


_LONGEST_TEXT = 300


def _shown(value: object) -> str:
    """A stranger's value, for a message."""
    try:
        return printable(repr(value))[:_LONGEST_TEXT]
    except BaseException as error:
        if is_wanted(error):
            raise
        return _kind(value)


def _kind(value: object) -> str:
    return "None" if value is None else f"an object of type {type(value).__name__}"
