# What the broker may do in the Transit engine, for BROKER_KMS=transit:https://HOST:8200/transit?prefix=broker
# It never needs export, backup, restore, or a list of keys.

# Key-encryption keys, one for each tenant and EHR: broker.TENANT and broker.TENANT.EHR
path "transit/keys/broker.*" {
  capabilities = ["create", "read", "update", "delete"]
}
path "transit/encrypt/broker.*" {
  capabilities = ["update"]
}
path "transit/decrypt/broker.*" {
  capabilities = ["update"]
}

# Signing keys; only where a registration signs in the KMS
path "transit/keys/broker-sign.*" {
  capabilities = ["create", "read", "update", "delete"]
}
path "transit/sign/broker-sign.*" {
  capabilities = ["update"]
}

# Tells a token that has ended from a key that is denied
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
