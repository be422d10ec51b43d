"""A job: the plan, its pieces, the files joined from them, the tables, and what it has done."""
