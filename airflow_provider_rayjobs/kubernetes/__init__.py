"""Clusters that KubeRay makes for tasks: manifests, leases, what they wait for, how they are reached."""
