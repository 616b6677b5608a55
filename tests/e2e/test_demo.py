"""`gateway demo`: the main job, as a newcomer starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx2

ROOT = Path(__file__).parents[2]


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "BANK_", "MODEL_"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", *arguments],
        cwd=ROOT,
        env={**environment, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_demo_decides_by_itself_and_everything_goes_as_it_should() -> None:
    demo = start("--auto")
    output, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, output
    parked = [line for line in output.splitlines() if "PARKED" in line]
    assert len(parked) == 2 and "VERIFY-77" in parked[1]
    assert "transferred 480.00 EUR" in output and "transferred 4900.00" not in output
    assert "NOT EXECUTED" in output and re.search(r"/runs/[0-9a-f]{32}", output)


def test_demo_waits_for_a_person_and_shows_the_link_to_approve() -> None:
    demo = start()
    try:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:
            lines.append(line)
            if "PARKED" in line:
                break
        story = "".join(lines)
        link = re.search(r"http://127\.0\.0\.1:\d+/sign-in\?token=\S+", story)
        assert link, story
        with httpx2.Client(base_url=link[0].split("/sign-in")[0]) as browser:
            page = browser.get(link[0])
            assert page.status_code == 200 and "<form" in page.text
            assert browser.get("/approvals").status_code != 200, "fetching the link must not sign anybody in"
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(60)
        assert demo.stdout is not None
        demo.stdout.close()


def test_two_demos_at_once_do_not_meet() -> None:
    demos = [start("--auto") for _ in range(2)]
    outputs = [demo.communicate(timeout=110)[0] for demo in demos]
    for demo, output in zip(demos, outputs, strict=True):
        assert demo.returncode == 0, output
