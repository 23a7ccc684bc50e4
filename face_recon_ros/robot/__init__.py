"""A robot that looks at people: whom, where they will be, how the neck gets there."""
