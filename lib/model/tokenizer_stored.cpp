#include <fmt/format.h>

#include "model/cursor.hpp"
#include "model/tokenizer_impl.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

void Tokenizer::save(std::string& out) const {
    const Impl& impl = *impl_;
    append(out, impl.size());
    append(out, static_cast<uint32_t>(impl.merges.size()));
    append(out, impl.bos_id);
    append(out, impl.eos_id);
    append(out, static_cast<uint8_t>(impl.bos_first));
    for (const std::string* name : {&impl.kind, &impl.pre}) {
        append(out, static_cast<uint8_t>(name->size()));
        out += *name;
    }
    out.append(reinterpret_cast<const char*>(impl.flags.data()), impl.flags.size());
    for (uint32_t token = 0; token < impl.size(); ++token)
        append(out, static_cast<uint16_t>(impl.text(token).size()));
    out += impl.arena;
    for (const auto& merge : impl.merges) {
        append(out, merge.left);
        append(out, merge.right);
        append(out, merge.merged);
    }
    if (!impl.is_spm()) return;
    append(out, static_cast<uint8_t>(impl.spm.space_first()));
    for (const float score : impl.spm.scores()) append(out, score);
}

Result<Tokenizer> Tokenizer::load(std::string_view bytes) {
    const auto corrupt = [](std::string_view what) {
        return fail(Errc::corrupt, fmt::format("corrupt tokenizer: {}", what));
    };
    if (bytes.size() > UINT32_MAX) return corrupt("over 4 GiB");
    auto impl = std::make_unique<Impl>();
    Cursor cursor(bytes);
    const auto vocab = cursor.value<uint32_t>();
    const auto merges = cursor.value<uint32_t>();
    impl->bos_id = cursor.value<Token>();
    impl->eos_id = cursor.value<Token>();
    const auto bos_first = cursor.value<uint8_t>();
    impl->kind = cursor.string<uint8_t>();
    impl->pre = cursor.string<uint8_t>();
    if (cursor.failed()) return corrupt("its head is cut short");
    if (bos_first > 1) return corrupt("its BOS flag is neither 0 nor 1");
    impl->bos_first = bos_first != 0;
    if (auto ok = known_kind(impl->kind); !ok) return fail(ok.error());
    if (vocab == 0 || vocab > kVocabMax || merges > kMergesMax)
        return corrupt(fmt::format("{} tokens and {} merges, 1 to {} and {} are allowed", vocab,
                                   merges, kVocabMax, kMergesMax));
    const std::string_view flags = cursor.take(vocab);
    const std::string_view lengths = cursor.take(uint64_t{vocab} * sizeof(uint16_t));
    if (cursor.failed()) return corrupt(fmt::format("it is cut short inside {} tokens", vocab));
    impl->flags.assign(flags.begin(), flags.end());
    impl->offsets.reserve(vocab + 1);
    uint64_t total = 0;
    for (uint32_t token = 0; token < vocab; ++token) {
        if (impl->flags[token] > (kControl | kEnd | kAdded | kByte))
            return corrupt(fmt::format("token {} has unknown flags", token));
        impl->offsets.push_back(static_cast<uint32_t>(total));
        total += model::load<uint16_t>(lengths.data() + token * sizeof(uint16_t));
        if (total > bytes.size())
            return corrupt(fmt::format("it is cut short inside token {}", token));
    }
    impl->offsets.push_back(static_cast<uint32_t>(total));
    impl->arena = cursor.take(total);
    const std::string_view table = cursor.take(uint64_t{merges} * sizeof(Impl::Merge));
    if (cursor.failed()) return corrupt("it is cut short inside its text or merges");
    std::string_view scores;
    uint8_t space_first = 0;
    if (impl->is_spm()) {
        space_first = cursor.value<uint8_t>();
        scores = cursor.take(uint64_t{vocab} * sizeof(float));
        if (cursor.failed()) return corrupt("it is cut short inside its scores");
        if (space_first > 1) return corrupt("its flag of a first space is neither 0 nor 1");
    }
    if (cursor.left() != 0) return corrupt(fmt::format("{} bytes too many", cursor.left()));
    impl->merges.resize(merges);
    if (merges > 0) std::memcpy(impl->merges.data(), table.data(), table.size());
    if (impl->is_spm()) {
        std::vector<float> values(vocab);
        std::memcpy(values.data(), scores.data(), scores.size());
        auto made = Spm::make(*impl, std::move(values), space_first != 0);
        if (!made) return fail(made.error());
        impl->spm = std::move(*made);
    }
    if (auto ok = impl->finish(); !ok) return fail(ok.error());
    return Tokenizer(std::move(impl));
}

}  // namespace parley::model
