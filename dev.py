"""Development commands: each makes the environment in the checkout when needed, then runs.

    python dev.py demo|demo-ble|test|test-zephyr|test-ble|lint|types|docs|bench|fuzz|soak|build|clean [-- ARGUMENTS]

What is after ``--`` goes to the tool that is run. The environment is ``.venv``; a stamp in it says what it was made
from, so that the next run starts at once and an edited source of the codec is compiled again.

Environment variables: MCUMGRX_EXT (require, off) and CC as in setup.py; MCUMGRX_VENV, another folder than ``.venv``;
FIRMWARE and DEVICE for demo and test-ble; SOAK_MINUTES.

Only the standard library is used. No f-strings and no annotations: an old Python must come as far as the message
that it is too old.
"""

import sys

OLDEST = (3, 11)
if sys.version_info[:2] < OLDEST:
    sys.exit(
        "error: mcumgrx needs Python %d.%d or newer; this is %s (%s)\n"
        "hint: make PYTHON=python3.13 test, or on Windows: py -3.13 dev.py test"
        % (OLDEST + (sys.version.split()[0], sys.executable))
    )

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import time
import tomllib

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, os.environ.get("MCUMGRX_VENV", ".venv"))
SCRIPTS = os.path.join(VENV, "Scripts" if os.name == "nt" else "bin")
VENV_PYTHON = os.path.join(SCRIPTS, "python.exe" if os.name == "nt" else "python")
STAMP = os.path.join(VENV, "mcumgrx-dev.json")
UNFINISHED = os.path.join(VENV, "mcumgrx-dev.unfinished")
PACKAGE = os.path.join(ROOT, "mcumgrx")
COMPILED = ["ext/_codec.pyx", "mcumgrx/_pycbor.py", "mcumgrx/_cbor.pxd"]


def say(text):
    sys.stdout.write("dev: " + text + "\n")
    sys.stdout.flush()


def fail(text, hint=""):
    sys.exit("error: " + text + ("\nhint: " + hint if hint else ""))


def run(*command, **options):
    """Run a command in the checkout; its exit code."""
    options.setdefault("cwd", ROOT)
    process = subprocess.Popen([str(part) for part in command], **options)
    try:
        return process.wait()
    except KeyboardInterrupt:
        # The tool has got it as well and puts things in order; the second one ends it.
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
        sys.exit(130)


# --- environment ----------------------------------------------------------------------------------------------------


def read(name):
    with open(os.path.join(ROOT, name), "rb") as file:
        return file.read()


def digest(*parts):
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def wanted():
    """What the environment depends on: `extension` for the compiled codec, `project` for all that pip decides."""
    build = tomllib.loads(read("pyproject.toml").decode("utf-8"))["build-system"]["requires"]
    switches = [os.environ.get(name, "") for name in ("MCUMGRX_EXT", "CC", "CFLAGS", "LDFLAGS")]
    return {
        "extension": digest(*map(read, COMPILED), read("setup.py"), json.dumps([build, switches]).encode("utf-8")),
        "project": digest(read("pyproject.toml"), read("setup.py"), read("mcumgrx/_version.py")),
    }


def read_stamp():
    try:
        with open(STAMP, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}  # not there, or cut off while it was written


def write_stamp(stamp):
    with open(STAMP + ".new", "w", encoding="utf-8") as file:
        json.dump(stamp, file, indent=1)
    os.replace(STAMP + ".new", STAMP)


def extensions_in_place():
    """The compiled codec in the checkout, of whatever Python."""
    return [
        os.path.join(PACKAGE, name)
        for name in os.listdir(PACKAGE)
        if name.startswith(("_codec.", "_cbor.")) and name.endswith((".so", ".pyd"))
    ]


def python_works(code):
    """Whether the environment has a Python, and it runs `code`."""
    if not os.path.exists(VENV_PYTHON):
        return False
    try:
        return subprocess.call([VENV_PYTHON, "-I", "-c", code], stderr=subprocess.DEVNULL, cwd=ROOT) == 0
    except OSError:
        return False


def make_venv():
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            fail(
                "this Python has no module '%s', so no environment can be made (%s)" % (module, sys.executable),
                "Debian and Ubuntu: apt install python%d.%d-venv; or take another Python: make PYTHON=python3.13"
                % sys.version_info[:2],
            )
    if os.path.isdir(VENV):
        if os.listdir(VENV) and not os.path.exists(os.path.join(VENV, "pyvenv.cfg")) and not os.path.exists(UNFINISHED):
            fail(VENV + " exists and is no environment", "move it away, or name another folder in MCUMGRX_VENV")
        shutil.rmtree(VENV)
    say("making %s with Python %s" % (os.path.relpath(VENV, ROOT), sys.version.split()[0]))
    os.makedirs(VENV)
    begin()
    # Not the Python of the environment that was just removed.
    python = getattr(sys, "_base_executable", None) or sys.executable
    if run(python, "-m", "venv", VENV) != 0:
        fail("the environment could not be made in " + VENV)


def begin():
    """From here to the next stamp the environment counts as unfinished."""
    with open(UNFINISHED, "w", encoding="utf-8"):
        pass
    with contextlib.suppress(FileNotFoundError):
        os.remove(STAMP)


def pip(*arguments):
    return run(VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments)


def install(extras):
    """Install the checkout, editable; whether it worked. The build tools stay in the environment."""
    # Without isolation an edit of the .pyx costs a compilation and no download, and the packaging tests need the tools.
    build = tomllib.loads(read("pyproject.toml").decode("utf-8"))["build-system"]["requires"]
    target = ".[%s]" % ",".join(extras) if extras else "."
    return pip(*build) == 0 and pip("--no-build-isolation", "--editable", target) == 0


def compiled_codec():
    """Empty when the environment has the compiled codec, else the reason why not."""
    code = "from mcumgrx.protocol import codec; print(codec.FALLBACK_REASON)"
    environment = {name: value for name, value in os.environ.items() if name != "MCUMGRX_PURE_PYTHON"}
    return subprocess.check_output([VENV_PYTHON, "-c", code], cwd=ROOT, env=environment, text=True).strip()


@contextlib.contextmanager
def locked():
    """Only one dev.py changes the environment; the others wait."""
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    with open(os.path.join(ROOT, "build", "dev.lock"), "w", encoding="utf-8") as file:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


def current(stamp, want, extras):
    return (
        all(stamp.get(key) == value for key, value in want.items())
        and set(extras) <= set(stamp.get("extras", ()))
        and (bool(stamp.get("reason")) or bool(extensions_in_place()))
        and python_works("")
    )


def prepare(*extras):
    """Make or mend the environment; empty when it has the compiled codec, else the reason why not."""
    want = wanted()
    stamp = read_stamp()
    if current(stamp, want, extras):
        return stamp["reason"]
    with locked():
        stamp = read_stamp()
        if not current(stamp, want, extras):
            stamp = change(stamp, want, extras)
    return stamp["reason"]


def change(stamp, want, extras):
    interrupted = os.path.exists(UNFINISHED)
    if not python_works("import pip"):
        make_venv()
        stamp, interrupted = {}, False
    begin()
    if stamp.get("extension") != want["extension"]:
        # setup.py keeps an old one when the new one cannot be built.
        for path in extensions_in_place():
            try:
                os.remove(path)
            except OSError as error:
                fail("cannot replace %s: %s" % (path, error), "end the programs that use it")
    extras = sorted(set(extras) | set(stamp.get("extras", ())))
    say("installing mcumgrx and what it needs" + (" (%s)" % ", ".join(extras) if extras else ""))
    done = install(extras)
    if not done and interrupted:
        say("the environment was left half made; making it anew")
        make_venv()
        done = install(extras)
    if not done:
        fail("the installation failed, see above", "the first time it needs the package index")
    reason = compiled_codec()
    if reason:
        say("the codec is not compiled (%s); the Python one is used" % reason)
        if os.environ.get("MCUMGRX_EXT") != "off":
            say("to see why: %s setup.py build_ext --inplace" % os.path.relpath(VENV_PYTHON, ROOT))
    stamp = dict(want, extras=extras, reason=reason)
    write_stamp(stamp)
    os.remove(UNFINISHED)
    return stamp


# --- commands -------------------------------------------------------------------------------------------------------


def environment(**changes):
    """The variables for a tool: ours with changes; None takes one away."""
    variables = dict(os.environ)
    for name, value in changes.items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    return variables


def pytest(*arguments, **options):
    return run(VENV_PYTHON, "-m", "pytest", *arguments, **options)


def demo(arguments):
    """update a simulated device; make demo FIRMWARE=path DEVICE=address takes real ones"""
    prepare()
    options = []
    for name in ("firmware", "device"):
        if os.environ.get(name.upper()):
            options += ["--" + name, os.environ[name.upper()]]
    return run(VENV_PYTHON, "-m", "mcumgrx", "demo", *(options + arguments), cwd=os.getcwd())


def demo_ble(arguments):
    """find and update a device over an emulated Bluetooth (Linux)"""
    prepare()
    return run(VENV_PYTHON, os.path.join(ROOT, "tests", "ble", "demo.py"), *arguments, cwd=os.getcwd())


# For two processors: many tests wait for processes and sockets, and leave them idle.
WORKERS = "3"


def test(arguments):
    """the test suite with the compiled codec, then with the Python one what passes bytes through a codec"""
    missing = prepare("test")
    parallel = ["-n", WORKERS, "--dist", "loadgroup"]
    if missing or os.environ.get("MCUMGRX_PURE_PYTHON", "") not in ("", "0"):
        say("one run, with the Python codec: " + (missing or "MCUMGRX_PURE_PYTHON is set"))
        return pytest(*(parallel + arguments))
    say("first run, with the compiled codec")
    code = pytest(*(parallel + arguments), env=environment(MCUMGRX_PURE_PYTHON=None))
    if code:
        return code
    say("second run, with the Python codec")
    code = pytest(*(parallel + ["-m", "codec"] + arguments), env=environment(MCUMGRX_PURE_PYTHON="1"))
    return 0 if code == 5 and arguments else code  # 5: the arguments select none of these


def test_python(arguments):
    """the whole test suite with the Python codec"""
    prepare("test")
    parallel = ["-n", WORKERS, "--dist", "loadgroup", "-m", "not packaging"]
    return pytest(*(parallel + arguments), env=environment(MCUMGRX_PURE_PYTHON="1"))


def test_zephyr(arguments):
    """real Zephyr servers, in the folder MCUMGRX_ZEPHYR_SERVERS; writes docs/reference/servers.md"""
    prepare("test")
    folder = os.environ.get("MCUMGRX_ZEPHYR_SERVERS", "")
    if not os.path.isfile(os.path.join(folder, "manifest.json")):
        fail(
            "MCUMGRX_ZEPHYR_SERVERS names no folder with a manifest.json",
            "take a release of https://github.com/intercreate/smp-server-fixtures",
        )
    table = [] if arguments else ["--zephyr-table", os.path.join("docs", "reference", "servers.md")]
    return pytest(*(["-n", "2", "--dist", "loadgroup", os.path.join("tests", "zephyr"), "-rs"] + table + arguments))


def test_ble(arguments):
    """a real Bluetooth device: DEVICE=ble:NAME, and FIRMWARE=path to update it; writes ble-report.json"""
    prepare("test")
    device, firmware = os.environ.get("DEVICE"), os.environ.get("FIRMWARE")
    if not device:
        fail("DEVICE names no device", "for example: make test-ble DEVICE=ble:Widget")
    options = ["--ble-device", device] + (["--ble-image", firmware] if firmware else [])
    return pytest(*(["-p", "no:randomly", "-v", "-rs", os.path.join("tests", "hardware")] + options + arguments))


def lint(arguments):
    """ruff: rules and format"""
    prepare("lint")
    return run(VENV_PYTHON, "-m", "ruff", "check", *arguments) or run(VENV_PYTHON, "-m", "ruff", "format", "--check")


def types(arguments):
    """mypy"""
    prepare("lint", "test")
    return run(VENV_PYTHON, "-m", "mypy", *arguments)


def docs(arguments):
    """the documentation, into docs/_build/html; warnings are errors"""
    prepare("docs")
    return run(VENV_PYTHON, "-m", "sphinx", "-W", "-q", "-b", "html", *(arguments + ["docs", "docs/_build/html"]))


def bench(arguments):
    """every script in benchmarks/, or those named after --"""
    prepare("bench")
    folder = os.path.join(ROOT, "benchmarks")
    found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    scripts = arguments or [
        os.path.join("benchmarks", name) for name in found if name.endswith(".py") and not name.startswith("_")
    ]
    if not scripts:
        fail("no benchmarks found in " + folder)
    return max(run(VENV_PYTHON, script) for script in scripts)


def fuzz(arguments):
    """all Hypothesis tests with many more examples; -- --hypothesis-profile=ci takes fewer"""
    prepare("test")
    options = ["-n", "2", "-m", "hypothesis", "--timeout", "0", "--hypothesis-profile", "fuzz"]
    return pytest(*(options + arguments))


def soak(arguments):
    """the suite again and again in new random orders, for SOAK_MINUTES (10)"""
    prepare("test")
    minutes = float(os.environ.get("SOAK_MINUTES", "10"))
    end = time.monotonic() + 60 * minutes
    rounds = 0
    while not rounds or time.monotonic() < end:
        rounds += 1
        say("round %d" % rounds)
        code = pytest(*(["-n", "2", "--dist", "loadgroup", "-q", "-m", "not packaging"] + arguments))
        if code:
            say("round %d failed; its order is given above as --randomly-seed" % rounds)
            return code
    say("%d rounds passed" % rounds)
    return 0


def build(arguments):
    """source distribution and, from it, a wheel with the compiled codec, into dist/"""
    prepare()
    target = os.path.join(ROOT, "dist")
    os.makedirs(target, exist_ok=True)
    code = "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
    lines = subprocess.check_output([VENV_PYTHON, "-c", code, target], cwd=ROOT, text=True).splitlines()
    sdist = os.path.join(target, lines[-1])
    say("built " + os.path.relpath(sdist, ROOT))
    command = [VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-build-isolation", "--no-deps"]
    command += ["--wheel-dir", target, sdist]
    mode = os.environ.get("MCUMGRX_EXT", "require")
    return run(*(command + arguments), env=environment(MCUMGRX_EXT=mode))


def clean(arguments):
    """what builds and tests leave behind; the environment stays"""
    for path in extensions_in_place():
        os.remove(path)
    caches = [".cache", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"]
    for name in ["build", "dist", "docs/_build"] + caches:
        shutil.rmtree(os.path.join(ROOT, name), ignore_errors=True)
    for folder, names, _ in os.walk(ROOT):
        names[:] = [name for name in names if not name.startswith(".")]
        if "__pycache__" in names:
            shutil.rmtree(os.path.join(folder, "__pycache__"))
            names.remove("__pycache__")
    return 0


COMMANDS = {
    function.__name__.replace("_", "-"): function
    for function in (
        demo,
        demo_ble,
        test,
        test_python,
        test_zephyr,
        test_ble,
        lint,
        types,
        docs,
        bench,
        fuzz,
        soak,
        build,
        clean,
    )
}


def main(arguments):
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        sys.stdout.write("usage: python dev.py COMMAND [-- ARGUMENTS]\n\n")
        for command, function in COMMANDS.items():
            sys.stdout.write("  %-12s %s\n" % (command, function.__doc__))
        return 0 if arguments else 2
    if name not in COMMANDS:
        fail("no command '%s'" % name, "one of: " + ", ".join(COMMANDS))
    rest = arguments[1:]
    return COMMANDS[name](rest[1:] if rest[:1] == ["--"] else rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
