#include "model/served_name.hpp"

#include <catch2/catch.hpp>

using parley::model::served_name;

TEST_CASE("a model file is called by its stem, without path, quantisation and capitals",
          "[model]") {
    CHECK(served_name("/models/SmolLM2-135M-Instruct.Q4_1.gguf") == "smollm2-135m-instruct");
    CHECK(served_name("gemma-3-270m-Q4_K_M.gguf") == "gemma-3-270m");
    CHECK(served_name("tiny.gguf") == "tiny");
    CHECK(served_name("My Model (v2).f16.gguf") == "my-model--v2");
    CHECK(served_name("qwen2.gguf") == "qwen2");
    CHECK(served_name("q8.gguf") == "q8");
    CHECK(served_name("/models/") == "model");
    CHECK(served_name("../../..") == "model");
}
