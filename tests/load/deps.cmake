# tool_test.cpp runs the program itself.
cmake_language(DEFER CALL add_dependencies load_test loadgen)
