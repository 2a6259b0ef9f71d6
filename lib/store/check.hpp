// Check: the scrub. Reads every value, and what tables say of each other.
//
// Finds     values that fail their checksum or are no row of their table; conversations without their
//           place in the list and the other way round; messages, children, streams and journal rows that
//           belong to nothing; a hole in the change log; idempotency keys without their expiry; a done
//           answer without exactly one final usage row and one change row; totals that are no sums.
// Backups   without the users' keys: checksums alone, as long as anything is sealed; what tables say of each
//           other is for those who have the keys.
// Reads     one snapshot: a long reader, during which the file may grow. Memory: about 100 bytes per
//           answer.
// Threads   any, beside a running writer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "store/env.hpp"

namespace parley::store {

struct Finding {
    std::string table;
    std::string key;  // hex
    std::string what;
};

struct CheckReport {
    uint64_t values = 0;         // read
    uint64_t erased = 0;         // of them sealed under keys of erased users, and passed over
    uint64_t unread = 0;         // of them sealed, and there are no keys here: their checksums alone were tried
    uint64_t findings = 0;       // in all
    std::vector<Finding> first;  // the first findings_max of them
};

Result<CheckReport> check_store(Env& env, size_t findings_max = 100);

// Every row of a table in key order, decoded: what export prints. Stops at the first error, of the store
// or of the callback. Takes a new snapshot every 10,000 rows, so that it never pins pages for long.
Result<uint64_t> each_row(
    Env& env, Table table,
    const std::function<Result<void>(std::string_view key, std::string_view json)>& row);

}  // namespace parley::store
