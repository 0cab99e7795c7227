"""The KYB risk-assessment service around the compiled core."""
