"""TLS: who is believed, and certificates that change under way."""

import pytest

from certificates import Authority
from program import Hookbot, curl, event, hookbot, message, ws, wscat


def ask(server, authority, *arguments):
    return curl("--cacert", authority.certificate, *arguments, server.url("/status"))


def test_curl_believes_the_authority_it_is_given(authority):
    server = authority.serve()
    assert ask(server, authority).stdout == "OK\n"
    assert curl(server.url("/status")).returncode == 60


def test_ws_connects_securely(needs_node, authority):
    server = authority.serve()
    client = ws(server.subscribing("/sub/a"), ca=str(authority.certificate))
    assert event(client)["event"] == "open"
    published = curl("--cacert", authority.certificate, "-d", "x", server.publishing("/pub/a"))
    assert published.stdout == "OK\n", published
    assert event(client)["data"] == "eA=="

    stranger = ws(server.subscribing("/sub/a"))
    assert event(stranger)["event"] == "error"


def test_hookbot_believes_the_authority_it_is_given(authority):
    server = authority.serve()
    ca = ["--ca", authority.certificate]
    listener = Hookbot("listen", "--count", "1", *ca, server.subscribing("/sub/a"))
    server.expect_subscriber("/sub/a")
    done = hookbot("publish", *ca, server.publishing("/pub/a"), input=b"secure")
    assert done.returncode == 0, done
    assert listener.output.next() == "secure"
    assert listener.wait() == 0

    done = hookbot("publish", server.publishing("/pub/a"), input=b"x")
    assert done.returncode == 4, done


def test_a_new_certificate_is_used_on_a_hang_up(needs_node, authority):
    pair = authority.pair()
    server = authority.serve(pair=pair)
    before = authority.serial(server)
    listener = wscat(server.subscribing("/sub/a"), "--ca", authority.certificate)

    authority.pair().move_over(pair)
    server.log.skip_to_now()
    server.signal(1)
    server.log.expect("certificate loaded again")
    after = authority.serial(server)
    assert after != before

    # A certificate with another's key.
    broken, other = authority.pair(), authority.pair()
    broken.key = other.key
    broken.move_over(pair)
    server.log.skip_to_now()
    server.signal(1)
    server.log.expect("the old certificate stays in use")
    assert authority.serial(server) == after

    # Who was connected all the time still is.
    curl("--cacert", authority.certificate, "-d", "still here", server.publishing("/pub/a"))
    assert message(listener) == "still here"


def test_a_new_certificate_is_noticed(authority):
    pair = authority.pair()
    server = authority.serve(pair=pair)
    before = authority.serial(server)
    authority.pair().move_over(pair)
    server.log.expect("certificate loaded again")
    assert authority.serial(server) != before


def test_clients_show_a_certificate_where_one_is_asked_for(needs_node, authority):
    server = authority.serve("--client-ca", authority.certificate)
    own = authority.pair("client")
    identity = ["--cert", own.certificate, "--key", own.key]
    assert ask(server, authority, *identity).stdout == "OK\n"

    refused = ask(server, authority)
    assert refused.returncode != 0
    assert refused.stdout == ""

    listener = wscat(server.subscribing("/sub/a"), "--ca", authority.certificate, *identity)
    url = server.publishing("/pub/a")
    published = curl("--cacert", authority.certificate, *identity, "-d", "mutual", url)
    assert published.stdout == "OK\n", published
    assert message(listener) == "mutual"


def test_another_authoritys_client_is_refused(authority, tmp_path):
    server = authority.serve("--client-ca", authority.certificate)
    stranger = Authority(tmp_path).pair("client")
    refused = ask(server, authority, "--cert", stranger.certificate, "--key", stranger.key)
    assert refused.returncode != 0
    assert refused.stdout == ""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_wrong_scheme_breaks_nothing(authority, server, scheme):
    secure = authority.serve()
    address = secure.address if scheme == "http" else server.address
    assert curl(f"{scheme}://{address}/status").returncode != 0
    assert ask(secure, authority).stdout == "OK\n"
    assert curl(server.url("/status")).stdout == "OK\n"
