#include "model/gguf.hpp"

#include <catch2/catch.hpp>
#include <chrono>
#include <cstdlib>
#include <random>

#include "base/text.hpp"
#include "support/gguf_writer.hpp"

using namespace parley;
using base::Errc;
using model::Gguf;
using test::GgufWriter;

namespace {

std::vector<uint8_t> pattern(size_t size) {
    std::vector<uint8_t> out(size);
    for (size_t i = 0; i < size; ++i) out[i] = static_cast<uint8_t>(i * 7 + 1);
    return out;
}

GgufWriter sample() {
    GgufWriter file;
    file.string("general.architecture", "llama")
        .u32("llama.block_count", 2)
        .i32("a.negative", -5)
        .u64("a.large", ~0ull)
        .f32("a.real", 1.5f)
        .f64("a.double", 1e300)
        .boolean("a.yes", true)
        .strings("a.strings", {"one", "", "three"})
        .integers("a.integers", {1, -2, 3})
        .reals("a.reals", {0.5f, -1.0f})
        .tensor("x", kernels::Type::q4_1, {64, 3}, pattern(3 * 2 * 20))
        .tensor_f32("y", {5}, {1, 2, 3, 4, 5});
    return file;
}

// What every accepted file must allow.
void touch_all(const Gguf& file) {
    uint64_t sum = 0;
    for (const auto& tensor : file.tensors()) {
        for (const uint8_t byte : tensor.data) sum += byte;
        CHECK(file.tensor(tensor.name) == &tensor);
    }
    for (const auto& key : file.keys()) {
        sum += file.show(key).size();
        if (const auto strings = file.strings(key)) {
            for (const auto& text : *strings)
                for (const char c : text) sum += static_cast<uint8_t>(c);
        }
        (void)file.integers(key);
        (void)file.reals(key);
        (void)file.real(key);
        (void)file.uint(key);
    }
    CHECK(sum + 1 > 0);
}

base::Error refusal(const GgufWriter& file) {
    const auto result = Gguf::parse(file.build());
    REQUIRE_FALSE(result);
    INFO(result.error().what);
    return result.error();
}

}  // namespace

TEST_CASE("a well-formed file gives back what was written", "[gguf]") {
    for (const uint32_t version : {2u, 3u}) {
        auto writer = sample();
        writer.version = version;
        const auto file = Gguf::parse(writer.build());
        REQUIRE(file);
        CHECK(file->string("general.architecture") == "llama");
        CHECK(file->uint("llama.block_count") == 2);
        CHECK(file->integer("llama.block_count") == 2);
        CHECK(file->integer("a.negative") == -5);
        CHECK(file->uint("a.negative") == std::nullopt);
        CHECK(file->uint("a.large") == ~0ull);
        CHECK(file->integer("a.large") == std::nullopt);
        CHECK(file->real("a.real") == 1.5);
        CHECK(file->real("a.negative") == -5.0);
        CHECK(file->real("a.double") == 1e300);
        CHECK(file->boolean("a.yes") == true);
        CHECK(file->boolean("a.real") == std::nullopt);
        CHECK(file->string("nothing") == std::nullopt);
        CHECK(file->strings("a.strings") == std::vector<std::string_view>{"one", "", "three"});
        CHECK(file->integers("a.integers") == std::vector<int64_t>{1, -2, 3});
        CHECK(file->reals("a.reals") == std::vector<float>{0.5f, -1.0f});
        CHECK(file->strings("a.integers") == std::nullopt);
        CHECK(file->keys().size() == 10);
        CHECK(file->keys()[1] == "llama.block_count");
        CHECK(file->show("a.integers") == "3 × int32: 1, -2, 3");
        CHECK(file->show("a.strings") == "3 × string: 'one', '', 'three'");
        REQUIRE(file->tensors().size() == 2);
        const auto* x = file->tensor("x");
        REQUIRE(x);
        CHECK(x->rank == 2);
        CHECK(x->dims == std::array<uint64_t, 4>{64, 3, 1, 1});
        CHECK(std::vector<uint8_t>(x->data.begin(), x->data.end()) == pattern(120));
        CHECK(file->tensor("z") == nullptr);
        touch_all(*file);
    }
}

TEST_CASE("a file cut at any byte is refused as corrupt and says where", "[gguf]") {
    const auto whole = sample().build();
    for (size_t size = 0; size < whole.size(); ++size) {
        const auto result = Gguf::parse({whole.begin(), whole.begin() + static_cast<long>(size)});
        INFO("cut at " << size);
        REQUIRE_FALSE(result);
        REQUIRE(result.error().code == Errc::corrupt);
        REQUIRE(result.error().what.find("at byte") != std::string::npos);
    }
}

TEST_CASE("random damage is refused or read, and never crashes", "[gguf]") {
    const auto whole = sample().build();
    const char* fixed = std::getenv("PARLEY_SEED");
    const auto seed = fixed ? static_cast<uint32_t>(std::atoll(fixed)) : std::random_device{}();
    std::mt19937 random(seed);
    INFO("PARLEY_SEED=" << seed);
    int refused = 0;
    for (int round = 0; round < 4000; ++round) {
        auto bytes = whole;
        const int flips = 1 + static_cast<int>(random() % 4);
        for (int i = 0; i < flips; ++i)
            bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
        if (random() % 4 == 0) bytes.resize(random() % bytes.size());
        const auto file = Gguf::parse(std::move(bytes));
        if (file)
            touch_all(*file);
        else
            ++refused;
    }
    CHECK(refused > 0);
}

TEST_CASE("headers that lie are refused", "[gguf]") {
    auto bytes = sample().build();
    const auto poke = [&](size_t at, uint64_t value, size_t size) {
        auto copy = bytes;
        std::memcpy(copy.data() + at, &value, size);
        const auto result = Gguf::parse(std::move(copy));
        REQUIRE_FALSE(result);
        return result.error();
    };
    CHECK(poke(0, 0, 1).what.find("not a GGUF file") != std::string::npos);
    CHECK(poke(4, 1, 4).code == Errc::unsupported);
    CHECK(poke(4, 0x03000000, 4).what.find("big-endian") != std::string::npos);
    CHECK(poke(8, 1ull << 60, 8).code == Errc::corrupt);
    CHECK(poke(8, ~0ull, 8).code == Errc::corrupt);
    CHECK(poke(16, 1ull << 60, 8).code == Errc::corrupt);
    CHECK(poke(16, 60'000, 8).code == Errc::corrupt);
    CHECK(poke(24, ~0ull, 8).code == Errc::corrupt);  // the first key's length
}

TEST_CASE("counts of 2^60 are refused at once", "[gguf]") {
    const auto start = std::chrono::steady_clock::now();
    for (const uint32_t element : {0u, 7u, 8u, 9u, 10u}) {
        std::string value;
        GgufWriter::put(value, element);
        GgufWriter::put(value, uint64_t{1} << 60);
        value.resize(4096);
        const auto error = refusal(GgufWriter().raw("a.list", 9, value));
        CHECK(error.code == Errc::corrupt);
        CHECK(error.what.find("'a.list'") != std::string::npos);
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
}

TEST_CASE("arrays nested too deep are refused", "[gguf]") {
    const auto nested = [](int depth) {
        std::string value;
        for (int i = 1; i < depth; ++i) {
            GgufWriter::put(value, uint32_t{9});
            GgufWriter::put(value, uint64_t{1});
        }
        GgufWriter::put(value, uint32_t{0});
        GgufWriter::put(value, uint64_t{1});
        return GgufWriter().raw("deep", 9, value + "x");
    };
    CHECK(Gguf::parse(nested(Gguf::kArrayDepthMax).build()));
    CHECK(refusal(nested(Gguf::kArrayDepthMax + 1)).what.find("nests") != std::string::npos);
    CHECK(refusal(nested(10'000)).what.find("nests") != std::string::npos);
}

TEST_CASE("metadata that cannot be meant is refused", "[gguf]") {
    CHECK(refusal(GgufWriter().u32("k", 1).u32("k", 2)).what.find("'k' is there twice") !=
          std::string::npos);
    CHECK(refusal(GgufWriter().u32("", 1)).code == Errc::corrupt);
    CHECK(refusal(GgufWriter().u32(std::string(70'000, 'k'), 1)).code == Errc::corrupt);
    CHECK(refusal(GgufWriter().raw("k", 13, "xxxxxxxx")).what.find("value type 13") !=
          std::string::npos);
    CHECK(refusal(GgufWriter().raw("k", 7, "\2")).what.find("boolean") != std::string::npos);
    for (const uint32_t alignment : {0u, 1u, 24u, 1u << 30}) {
        CHECK(refusal(GgufWriter().u32("general.alignment", alignment)).what.find("alignment") !=
              std::string::npos);
    }
    CHECK(refusal(GgufWriter().i32("general.alignment", -32)).code == Errc::corrupt);
    CHECK(refusal(GgufWriter().string("general.alignment", "32")).code == Errc::corrupt);
}

TEST_CASE("tensors that cannot be there are refused", "[gguf]") {
    const std::string room(4096, 'x');
    const auto one = [&](uint32_t type, std::vector<uint64_t> dims, uint64_t offset,
                         const char* name = "t") {
        return refusal(GgufWriter().raw_tensor(name, type, dims, offset).data(room));
    };
    CHECK(one(0, {}, 0).what.find("dimensions") != std::string::npos);
    CHECK(one(0, {1, 1, 1, 1, 1}, 0).what.find("dimensions") != std::string::npos);
    CHECK(one(0, {0}, 0).what.find("no data") != std::string::npos);
    CHECK(one(0, {4, 0}, 0).what.find("no data") != std::string::npos);
    CHECK(one(0, {1ull << 62}, 0).what.find("out of range") != std::string::npos);
    CHECK(one(0, {1ull << 32, 1ull << 32}, 0).what.find("out of range") != std::string::npos);
    CHECK(one(0, {1ull << 32, 1ull << 30, 1ull << 2, 4}, 0).what.find("out of range") !=
          std::string::npos);
    CHECK(one(3, {33}, 0).what.find("not a multiple") != std::string::npos);
    CHECK(one(12, {128}, 0).what.find("not a multiple") != std::string::npos);
    CHECK(one(0, {4}, 8).what.find("alignment") != std::string::npos);
    CHECK(one(0, {4}, 4096).what.find("truncated") != std::string::npos);
    CHECK(one(0, {1025}, 0).what.find("truncated") != std::string::npos);
    CHECK(one(0, {4}, ~0ull & ~31ull).what.find("truncated") != std::string::npos);
    CHECK(one(0, {4}, 0, "").code == Errc::corrupt);
    CHECK(one(99, {4}, 0).code == Errc::unsupported);
    CHECK(refusal(GgufWriter().raw_tensor("t", 0, {4}, 0).raw_tensor("t", 0, {4}, 32).data(room))
              .what.find("'t' is there twice") != std::string::npos);
    CHECK(refusal(GgufWriter().raw_tensor("t", 0, {16}, 0).raw_tensor("u", 0, {4}, 32).data(room))
              .what.find("overlap") != std::string::npos);
}

TEST_CASE("a stated alignment is followed", "[gguf]") {
    GgufWriter writer;
    writer.alignment = 256;
    writer.u32("general.alignment", 256).tensor_f32("a", {2}, {1, 2}).tensor_f32("b", {2}, {3, 4});
    const auto file = Gguf::parse(writer.build());
    REQUIRE(file);
    float value = 0;
    std::memcpy(&value, file->tensor("b")->data.data(), sizeof value);
    CHECK(value == 3.0f);
}

TEST_CASE("a file is opened from disk, and what is no file is refused by name", "[gguf]") {
    const std::string path = std::string(PARLEY_BINARY_DIR) + "/gguf_test.gguf";
    sample().write(path);
    {
        auto file = Gguf::open(path);
        REQUIRE(file);
        CHECK(file->file_bytes() == sample().build().size());
        const auto bytes = sample().build();
        CHECK(file->content_hash() ==
              base::hex(base::sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()})));
        file->drop_pages();
        touch_all(*file);
        Gguf moved = std::move(*file);
        touch_all(moved);
    }
    std::remove(path.c_str());
    const auto missing = Gguf::open(path);
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == Errc::not_found);
    CHECK(missing.error().what.find(path) != std::string::npos);
    CHECK_FALSE(Gguf::open("/"));
    CHECK_FALSE(Gguf::open("/dev/null"));
}

TEST_CASE("what is shown of a hostile name is short and printable", "[gguf]") {
    test::GgufWriter writer;
    writer.string("bad", "\xff\x01\n\x7f")
        .string("long", std::string(1000, 'x'))
        .string("cut", "ab日本");
    const auto file = Gguf::parse(writer.build());
    REQUIRE(file);
    CHECK(file->show("bad") == "'\\xff\\x01\\n\\x7f'");
    CHECK(file->show("long") == "'" + std::string(64, 'x') + "…'");
    CHECK(file->show("cut") == "'ab日本'");
    CHECK(file->show("nothing").empty());
}
