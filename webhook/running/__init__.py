"""What runs already: workloads and their pods, now against after a restart. A pure core; reading stands beside it."""
