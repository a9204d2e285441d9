"""The plugin for pytest: its fixtures, what a failing test shows, and what it costs those who do not use it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from mcumgrx.testing.recording import recording

pytest_plugins = ["pytester"]

QUICK = "erase=0.2,boot=0.05,reset_delay=0.02"
BARE = ("-p", "no:randomly", "-p", "no:cacheprovider")
WITHOUT_ASYNCIO = (*BARE, "-p", "no:asyncio")
PLAIN = (*BARE, "-o", "asyncio_default_fixture_loop_scope=function")  # of which pytest-asyncio warns if it is not said


def test_a_device_that_blocks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(mcumgrx_device): assert mcumgrx_device.os.echo('hello') == 'hello'")
    pytester.runpytest(*PLAIN, "--mcumgrx-device", "sim:").assert_outcomes(passed=1)


def test_the_environment_names_the_device_and_the_option_another(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile("def test_it(mcumgrx_address): assert mcumgrx_address == 'sim:two'")
    monkeypatch.setenv("MCUMGRX_DEVICE", "sim:one")
    pytester.runpytest(*PLAIN).assert_outcomes(failed=1)
    pytester.runpytest(*PLAIN, "--mcumgrx-device", "sim:two").assert_outcomes(passed=1)


def test_without_a_device_it_says_how_to_name_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(mcumgrx_device): assert mcumgrx_device.os.echo('hello') == 'hello'")
    result = pytester.runpytest(*PLAIN, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no device: say which with --mcumgrx-device ADDRESS or MCUMGRX_DEVICE*"])


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_a_client_with_asyncio_in_both_of_its_modes(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makepyfile(
        """
        import pytest
        from mcumgrx.contracts import OsGroup

        @pytest.mark.asyncio
        async def test_it(mcumgrx_client):
            assert await mcumgrx_client.group(OsGroup).echo("hello") == "hello"
        """
    )
    pytester.runpytest(*PLAIN, f"--asyncio-mode={mode}", "--mcumgrx-device", "sim:").assert_outcomes(passed=1)


def test_a_client_without_asyncio_says_what_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(mcumgrx_client): pass")
    result = pytester.runpytest(*WITHOUT_ASYNCIO, "--mcumgrx-device", "sim:")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*mcumgrx_client is asynchronous and needs pytest-asyncio*"])


def test_each_test_has_a_board_of_its_own_which_stays_the_same_in_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import subprocess, sys
        import mcumgrx, pytest
        from mcumgrx.sim.images import build_image

        @pytest.mark.parametrize("turn", [1, 2])
        def test_update(mcumgrx_sim, tmp_path, turn):
            (tmp_path / "app.bin").write_bytes(build_image("1.1.0", payload_size=4000))
            with mcumgrx.open(mcumgrx_sim) as device:
                assert device.image.state().slots[0].version == "1.0.0"
                device.update(tmp_path / "app.bin")
            shown = subprocess.run(
                [sys.executable, "-m", "mcumgrx", "image", "list", "-d", mcumgrx_sim],
                capture_output=True, text=True, check=True,
            ).stdout
            assert "slot 0  1.1.0" in shown

        @pytest.mark.mcumgrx_sim(version="3.2.1")
        class TestOptions:
            @pytest.mark.mcumgrx_sim(erase=0.1)
            def test_options(self, mcumgrx_sim):
                with mcumgrx.open(mcumgrx_sim) as device:
                    assert device.image.state().slots[0].version == "3.2.1"
                assert "erase=0.1," in mcumgrx_sim
        """
    )
    pytester.runpytest(*PLAIN, "--strict-markers").assert_outcomes(passed=3)


def test_the_fixtures_take_a_board_that_a_project_chooses(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def mcumgrx_address(mcumgrx_sim):
            return mcumgrx_sim
        """
    )
    pytester.makepyfile("def test_it(mcumgrx_device): assert mcumgrx_device.image.state().slots")
    pytester.runpytest(*PLAIN).assert_outcomes(passed=1)


FAILING = """
    import logging
    from mcumgrx.sim.images import build_image

    def test_it(mcumgrx_device, tmp_path):
        (tmp_path / "app.bin").write_bytes(build_image("1.1.0", payload_size=4000))
        mcumgrx_device.os.echo("hello")
        mcumgrx_device.update(tmp_path / "app.bin")
        logging.getLogger("mcumgrx.session").warning("told to all")
        assert %s
"""


def test_a_failing_test_shows_requests_answers_and_events(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING % "False")
    result = pytester.runpytest(*PLAIN, "--mcumgrx-device", f"sim:,{QUICK}")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- mcumgrx session -*",
            "*> echo 0/0 {'d': 'hello'}",
            "*< 0/0 {'r': 'hello'}",
            "*[*] upload: *",
            "*> image upload 1/1 {*'off': *",
            "*[*] prove done: 1.1.0 runs",
        ]
    )
    # What pytest captures of the log itself is what it was.
    logs = result.stdout.str().partition("Captured log call")[2].partition("mcumgrx session")[0]
    assert "told to all" in logs
    assert "echo" not in logs


def test_a_test_that_passes_shows_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(FAILING % "True")
    result = pytester.runpytest(*PLAIN, "-rA", "--mcumgrx-device", f"sim:,{QUICK}")
    result.assert_outcomes(passed=1)
    assert "mcumgrx session" not in result.stdout.str()


def test_a_device_that_does_not_answer_shows_what_it_was_asked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import mcumgrx, pytest

        @pytest.mark.mcumgrx_sim(link="uart", unhealthy="1.0.0", watchdog=60)
        def test_it(mcumgrx_sim):
            with mcumgrx.open(mcumgrx_sim, timeout_s=0.1) as device:
                device.os.echo("there?")
        """
    )
    result = pytester.runpytest(*WITHOUT_ASYNCIO)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*> echo 0/0 {'d': 'there[?]'}", "*- mcumgrx.*: no answer to the echo*"])


def test_a_recording_is_bounded_and_says_so() -> None:
    with recording() as session:
        for number in range(1500):
            logging.getLogger("mcumgrx.client").info("line %d \x1b[2J", number)
    lines = session.text.splitlines()
    assert lines[0] == "(500 lines before)"
    assert len(lines) == 1001
    assert lines[-1].endswith(r"line 1499 \x1b[2J")


@pytest.mark.parametrize("level", [logging.NOTSET, logging.ERROR])
def test_a_recording_leaves_the_log_as_it_was(level: int, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("mcumgrx.client")
    logger.setLevel(level)
    try:
        with recording() as session:
            logger.debug("in detail")
            logger.warning("careful")
        assert "in detail" in session.text
        assert "careful" in session.text
        assert "in detail" not in caplog.text
        assert ("careful" in caplog.text) is (level == logging.NOTSET)
        assert (logger.level, logger.filters) == (level, [])
    finally:
        logger.setLevel(logging.NOTSET)


def test_a_record_that_cannot_be_shown_does_no_harm() -> None:
    with recording() as session:
        logging.getLogger("mcumgrx.client").debug("%d", "no number")
    assert "cannot be shown (TypeError)" in session.text


def test_who_does_not_use_it_pays_next_to_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import json, sys

        def test_it():
            print(json.dumps(sorted(name for name in sys.modules if name.startswith("mcumgrx"))))
        """
    )
    loaded = pytester.runpytest_subprocess(*PLAIN, "-s", "-q")
    loaded.assert_outcomes(passed=1)
    names = next(json.loads(line) for line in loaded.outlines if line.startswith("["))
    assert set(names) <= {
        *("mcumgrx", "mcumgrx._version", "mcumgrx.testing"),
        *("mcumgrx.testing.pytest_plugin", "mcumgrx.testing.pytest_async"),
    }
    assert "mcumgrx.testing.pytest_plugin" in names
    alone = (
        "import sys, pytest; before = set(sys.modules); import mcumgrx.testing.pytest_plugin; "
        "print(*set(sys.modules) - before)"
    )
    new = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=True).stdout.split()
    assert {name.partition(".")[0] for name in new} == {"mcumgrx"}
