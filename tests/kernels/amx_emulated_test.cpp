// The AMX path over EMULATED tiles: its source is the real one, its instructions are not. See
// amx_emulation.hpp for what that shows and what not.
#if defined(PARLEY_AMX_EMULATED)
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <thread>

#include "kernels/cpu/cpu.hpp"
#include "kernels/proof.hpp"
#include "kernels/tensors.hpp"

namespace parley::kernels {

namespace cpu {
void use_emulated_amx(Operations& operations);
}
namespace amx_emulation {
extern std::atomic<uint64_t> products, configurations;
}

namespace {

// The table dispatch.cpp would make; nullptr where even AVX-512 VNNI is missing.
const Kernels* emulated() {
    const Kernels* base = find("avx512vnni");
    if (base == nullptr) {
        std::printf("SKIPPED: emulated AMX needs AVX-512 VNNI\n");
        return nullptr;
    }
    static std::vector<TypeOps> types;
    static Kernels table;
    if (table.name == nullptr) {
        cpu::Operations ops = cpu::kAvx512Vnni;
        cpu::use_emulated_amx(ops);
        const std::pair<Type, void (*)(const MatmulArgs&)> products[] = {
            {Type::q4_1, ops.matmul_q4_1}, {Type::q4_0, ops.matmul_q4_0},
            {Type::q8_0, ops.matmul_q8_0}, {Type::q5_0, ops.matmul_q5_0},
            {Type::q5_1, ops.matmul_q5_1}, {Type::q4_k, ops.matmul_q4_k},
            {Type::q5_k, ops.matmul_q5_k}, {Type::q6_k, ops.matmul_q6_k},
            {Type::f32, ops.matmul_f32},   {Type::f16, ops.matmul_f16},
            {Type::bf16, ops.matmul_bf16}};
        for (const auto& [type, matmul] : products) {
            types.push_back(*base->ops(type));
            types.back().matmul = matmul;
        }
        table = *base;
        table.name = "emulated amx";
        table.types = types;
    }
    return &table;
}

void compare(const Kernels& path, Type type, uint64_t rows, uint64_t cols, uint32_t m,
             uint32_t seed) {
    Random random{seed};
    cols = whole_blocks(type, cols);
    const std::vector<uint8_t> tensor = random_tensor(random, type, rows, cols);
    Weights fast = pack(path, type, tensor, rows, cols);
    Weights slow = pack(reference::table(), type, tensor, rows, cols);
    const std::vector<float> x = random.reals(m * cols);
    const bool add = m % 2 == 0;
    const auto expected = product(reference::table(), slow, x, m, add);
    const uint64_t before = amx_emulation::products;
    const auto actual = product(path, fast, x, m, add);
    INFO(traits(type).name << " rows " << rows << " cols " << cols << " m " << m);
    REQUIRE(first_difference(actual, expected) == -1);
    // One product a block (Q6_K: two), group and full tile; floats and smaller tiles have none.
    const uint64_t blocks = fast.ops->quantised_input ? cols / kBlock : 0;
    const uint64_t groups = (rows + kGroup - 1) / kGroup;
    REQUIRE(amx_emulation::products - before ==
            blocks * groups * (m / kTileRows) * (type == Type::q6_k ? 2 : 1));
}

}  // namespace

TEST_CASE("the AMX source over emulated tiles has the reference's bits for 1 to 64 rows",
          "[kernels][emulated]") {
    const Kernels* path = emulated();
    if (path == nullptr) return;
    for (const Type type : kTypes) {
        for (uint32_t m = 1; m <= 64; ++m) compare(*path, type, 48, 96, m, m);
    }
}

TEST_CASE("the AMX source over emulated tiles has the reference's bits for odd shapes",
          "[kernels][emulated]") {
    const Kernels* path = emulated();
    if (path == nullptr) return;
    uint32_t seed = 500;
    for (const Type type : kTypes) {
        for (const uint64_t rows : {1, 15, 17, 79}) {
            // Blocks in every remainder of the six that are unpacked together.
            for (const uint64_t blocks : {1, 2, 3, 4, 5, 6, 7, 11, 17}) {
                compare(*path, type, rows, blocks * kBlock, 16, ++seed);
            }
            compare(*path, type, rows, 1536, 33, ++seed);
        }
    }
}

TEST_CASE("every thread configures its emulated tiles once", "[kernels][emulated]") {
    const Kernels* path = emulated();
    if (path == nullptr) return;
    Random random{3};
    const auto tensor = random_tensor(random, Type::q4_1, 32, 64);
    Weights weights = pack(*path, Type::q4_1, tensor, 32, 64);
    const auto x = random.reals(16 * 64);
    const auto expected = product(*path, weights, x, 16, false);
    const uint64_t before = amx_emulation::configurations;
    std::vector<std::vector<float>> got(3);
    std::vector<std::thread> threads;
    for (auto& out : got) {
        threads.emplace_back([&path, &weights, &x, &out] {
            for (int i = 0; i < 2; ++i) out = product(*path, weights, x, 16, false);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& out : got) CHECK(first_difference(out, expected) == -1);
    CHECK(amx_emulation::configurations - before == 3);
}

TEST_CASE("the path named amx is there only where the processor and the system give tiles",
          "[kernels]") {
    REQUIRE(names().front() == "amx");
    const Kernels* amx = find("amx");
    if (amx == nullptr) {
        CHECK(std::string_view{best().name} != "amx");
        std::printf("SKIPPED: no processor with AMX here, its own tiles have not run\n");
        return;
    }
    const Proof proof = try_out(*amx, *find("avx512vnni"));
    CHECK((proof == Proof::faster || proof == Proof::slower));
}

TEST_CASE("a path proves itself by its bits and its time, and one that cannot run ends its child only",
          "[kernels][emulated]") {
    const Kernels* path = emulated();
    if (path == nullptr) return;
    const Kernels& known = *find("avx512vnni");
    CHECK(try_out(*path, known) == Proof::slower);  // tiles in software
    CHECK(try_out(known, *path) == Proof::faster);

    std::vector<TypeOps> types(known.types.begin(), known.types.end());
    Kernels broken = known;
    broken.types = types;
    const auto of = [&types](Type type) -> TypeOps& {
        return *std::find_if(types.begin(), types.end(), [type](const TypeOps& t) { return t.type == type; });
    };
    static const auto good = of(Type::q6_k).matmul;
    of(Type::q6_k).matmul = [](const MatmulArgs& args) {
        good(args);
        args.out[5] = std::nextafter(args.out[5], 1e9f);
    };
    CHECK(try_out(broken, known) == Proof::different);
    of(Type::q6_k).matmul = [](const MatmulArgs&) { __builtin_trap(); };
    CHECK(try_out(broken, known) == Proof::refused);
    of(Type::q6_k).matmul = [](const MatmulArgs&) {
        for (;;) asm volatile("");  // the compiler must not take it for nothing
    };
    CHECK(try_out(broken, known) == Proof::refused);  // after its two seconds
}

}  // namespace parley::kernels
#endif
