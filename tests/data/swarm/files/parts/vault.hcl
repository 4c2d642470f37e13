storage "raft" {
  path = "/vault/file"
  node_id = "vault{{ .Task.Slot }}"
}
listener "tcp" {
  address = "0.0.0.0:8200"
  tls_disable = true
}
