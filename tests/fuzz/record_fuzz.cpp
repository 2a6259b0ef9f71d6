// Any bytes as a value of the store, as they are and behind a checksum that fits: refused, or a body that
// is encoded to one that decodes the same. Any text as each kind of row: refused, or written back the same.
#include <cstdlib>

#include "base/text.hpp"
#include "replay_main.hpp"
#include "store/record.hpp"
#include "store/rows.hpp"

namespace {

using namespace parley;
using namespace parley::store;

template <class Row>
void try_row(std::string_view json) {
    const auto row = from_json<Row>(json);
    if (!row) return;
    const std::string once = to_json(*row);
    const auto again = from_json<Row>(once);
    if (!again || to_json(*again) != once) std::abort();
}

void try_rows(std::string_view json) {
    try_row<OrgRow>(json);
    try_row<UserRow>(json);
    try_row<ApiKeyRow>(json);
    try_row<ConvRow>(json);
    try_row<MessageRow>(json);
    try_row<StreamRow>(json);
    try_row<DeltaRow>(json);
    try_row<ModelRow>(json);
    try_row<AliasRow>(json);
    try_row<UsageTotal>(json);
    try_row<IdemRow>(json);
    try_row<ReadRow>(json);
}

void try_value(std::string_view value) {
    const auto body = decode_record(Table::msg, "key", value);
    if (!body) return;
    try_rows(*body);
    const auto back = encode_record(Table::msg, "key", *body);
    if (!back || decode_record(Table::msg, "key", *back).value_or("") != *body) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string bytes(reinterpret_cast<const char*>(data), size);
    try_rows(bytes);
    try_value(bytes);
    if (size < 6) return 0;
    uint32_t crc = base::crc32c("msg");
    crc = base::crc32c(std::string_view("\0", 1), crc);
    crc = base::crc32c("key", crc);
    crc = base::crc32c(std::string_view(bytes).substr(0, 2), crc);
    crc = base::crc32c(std::string_view(bytes).substr(6), crc);
    for (int i = 0; i < 4; ++i)
        bytes[static_cast<size_t>(2 + i)] = static_cast<char>(crc >> (24 - 8 * i));
    try_value(bytes);
    return 0;
}
