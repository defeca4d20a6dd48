"""libvirt: the only place that says "domain" for a VM."""
