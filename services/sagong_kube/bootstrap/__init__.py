"""What a cluster has from its first start: namespaces, roles, priorities, the API's own service."""
