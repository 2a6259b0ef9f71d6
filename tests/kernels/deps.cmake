# The AMX path's source over emulated tiles, which needs AVX-512 VNNI at run time but no AMX.
if(PARLEY_AVX512VNNI_OPTIONS)
  add_library(amx_emulated OBJECT ${CMAKE_CURRENT_LIST_DIR}/amx_emulated.cpp)
  target_include_directories(amx_emulated PRIVATE ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  target_compile_options(amx_emulated PRIVATE ${PARLEY_AVX512VNNI_OPTIONS})
  target_compile_definitions(amx_emulated INTERFACE PARLEY_AMX_EMULATED)
  set(TEST_DEPENDS amx_emulated)
endif()
