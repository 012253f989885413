"""What the whole run has left in the logs."""

import pytest

from program import CANARIES, LOGS, Hookbot, Server, curl, hookbot, token


def test_the_finest_log_is_written_for_the_search():
    fine = {"RUST_LOG": "trace"}
    server = Server(**fine)
    listener = Hookbot("listen", "--count", "3", server.subscribing("/sub/a"), **fine)
    server.expect_subscriber("/sub/a")
    own, url = token("/pub/a"), server.url("/pub/a")
    assert hookbot("publish", server.publishing("/pub/a"), input=b"1", **fine).returncode == 0
    assert curl("-d", "2", f"{url}?token={own}").stdout == "OK\n"
    leaky = ["-H", f"Hookbot-Token: {own}", "-H", f"Referer: {url}?token={own}"]
    assert curl("-d", "3", *leaky, url).stdout == "OK\n"
    curl("-d", "4", f"{server.url('/pub/other')}?token={own}")
    curl("--path-as-is", f"{server.url('/pub/../other')}?token={own}")
    assert listener.wait() == 0
    assert server.stop() == 0


@pytest.mark.last
def test_no_log_has_a_secret():
    lines = [line for log in LOGS for line in log.lines]
    if not any("hookbot::request" in line for line in lines):
        pytest.skip("no request was logged: no other test has run")
    leaks = [line for line in lines if any(canary in line for canary in CANARIES)]
    assert leaks == []
