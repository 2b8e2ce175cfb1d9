"""Signatures are those of Standard Webhooks: its own example, and what any library makes of them."""

import base64
import hashlib
import hmac

from broker.secret import Secret
from broker.webhooks.signing import signed_headers

EXAMPLE = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
OTHER = Secret("whsec_" + base64.b64encode(bytes(range(32))).decode())


def test_the_example_of_the_specification_has_its_signature() -> None:
    headers = signed_headers([EXAMPLE], "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', now=1614265330.9)

    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_each_secret_signs() -> None:
    both = signed_headers([EXAMPLE, OTHER], "msg_1", b"{}", now=1)["webhook-signature"].split(" ")

    own = base64.b64encode(hmac.new(bytes(range(32)), b"msg_1.1.{}", hashlib.sha256).digest()).decode()
    assert len(both) == 2
    assert both[1] == f"v1,{own}"
