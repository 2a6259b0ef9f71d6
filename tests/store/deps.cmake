# Preloaded into convstore by the crash test.
add_library(store_write_recorder MODULE store/write_recorder.cpp)
target_link_libraries(store_write_recorder PRIVATE ${CMAKE_DL_LIBS})
set_target_properties(store_write_recorder PROPERTIES
  PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
set(TEST_NEEDS store_write_recorder convstore)
