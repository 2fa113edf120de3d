"""What a fault of TLS means for the operator, for brokers of any kind."""

from __future__ import annotations

import ssl

import pytest

from gateway.brokers.tls import tls_problem

CLIENT = "brokers.bus.tls.cert_file and brokers.bus.tls.key_file"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "not valid yet; check the clocks"),
        (10, "has expired; renew it there"),
        (18, "not trusted; check brokers.bus.tls.ca_file"),
        (62, "for another host; check brokers.bus.servers"),
        (64, "for another host; check brokers.bus.servers"),
    ],
)
def test_a_certificate_that_fails_verification(code: int, words: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    assert words in tls_problem("bus", error)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", CLIENT),
        ("TLSV1_ALERT_UNKNOWN_CA", CLIENT),
        ("SSLV3_ALERT_BAD_CERTIFICATE", CLIENT),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", CLIENT),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", CLIENT),
        ("TLSV1_ALERT_DECRYPT_ERROR", CLIENT),
        ("WRONG_VERSION_NUMBER", "the TLS handshake failed; check brokers.bus.tls and the port"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "the TLS handshake failed"),
        (None, "the TLS handshake failed"),
    ],
)
def test_a_handshake_that_fails(reason: str | None, words: str) -> None:
    error = ssl.SSLError()
    error.reason = reason  # type: ignore[assignment]  # None is what the stubs leave out
    assert words in tls_problem("bus", error)
