set(TEST_DEPENDS parley_model)
