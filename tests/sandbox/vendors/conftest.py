from tests.sandbox.oauth.conftest import ehr, signing_key, staffed_ehr, start

__all__ = ["ehr", "signing_key", "staffed_ehr", "start"]
