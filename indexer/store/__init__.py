"""OUT: the only code with SQL; every public method is one transaction."""
