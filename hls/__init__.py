"""What a vendor builds: one C++ kernel template per operation, the generated top, and its build with g++."""
