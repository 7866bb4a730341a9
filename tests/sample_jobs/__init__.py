"""Small jobs that stand in for long ones in the tests of the runtime and of the component."""
