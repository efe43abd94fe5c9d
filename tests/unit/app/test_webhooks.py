"""The signature of webhooks."""

from app.webhooks import SigningSecret


def test_the_signature_is_the_one_that_the_libraries_of_standard_webhooks_make() -> None:
    """The values are those of the tests of these libraries."""
    secret = SigningSecret.parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
