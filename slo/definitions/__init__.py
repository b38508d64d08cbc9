"""The promises of this group's services, one module a component. `slo generate` reads every module here."""
