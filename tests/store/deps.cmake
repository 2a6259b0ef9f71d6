# Preloaded into convstore by the crash test.
add_library(store_write_recorder MODULE store/write_recorder.cpp)
target_link_libraries(store_write_recorder PRIVATE ${CMAKE_DL_LIBS})
set_target_properties(store_write_recorder PROPERTIES
  PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set(TEST_NEEDS store_write_recorder convstore)

# Not a test: tests/bench/store_figures.py runs it. SQLite is one of the sides where it is at hand.
find_package(SQLite3 QUIET)
add_executable(store_figures store/figures.cpp)
target_include_directories(store_figures PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(store_figures PRIVATE parley_store CLI11::CLI11)
if(SQLite3_FOUND)
  target_compile_definitions(store_figures PRIVATE PARLEY_SQLITE)
  target_link_libraries(store_figures PRIVATE SQLite::SQLite3)
endif()
