"""At the end of a session: which recorded cases were not replayed, and what they wait for."""

from collections import defaultdict

NOT_BUILT = "not built yet: "


def pytest_terminal_summary(terminalreporter):
    waiting = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
        if "tests/parity/" in report.nodeid and NOT_BUILT in reason:
            waiting[reason.split(NOT_BUILT, 1)[1]].append(report.nodeid.partition("[")[2].rstrip("]") or report.nodeid)
    if not waiting:
        return
    terminalreporter.section("recorded cases that wait for something to be built")
    for names in sorted(waiting):
        terminalreporter.write_line(f"{names}: {len(waiting[names])} cases ({', '.join(sorted(waiting[names]))})")
