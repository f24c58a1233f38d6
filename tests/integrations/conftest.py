"""The real tools, off the net. With FUNCOPT_NO_SKIPS set (`make test-integrations`) a test that is skipped for want of its tool fails."""

import os

import pytest

for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "ACCELERATE_DISABLE_RICH"):
    os.environ[name] = "1"

collect_ignore = ["workers"]  # programs for a launcher, whose doctests nobody wants
NO_SKIPS = os.environ.get("FUNCOPT_NO_SKIPS", "") not in ("", "0")


def refused(report):
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.longrepr = f"skipped where nothing may be skipped (FUNCOPT_NO_SKIPS): {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return refused((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return refused((yield))
