"""What an operator asks first of database, Redis, providers and the system's limits: each answer a finding, every wait
bounded, no secret and no personal data in any."""
