// Limits: what may be asked per minute, at once and per period; exact over all processes of one box.
//
// Shared     a file of fixed size that every process maps (table.hpp); no server. One robust lock guards
//            it, held for about a microsecond; a process that dies inside leaves no half-made step.
// Buckets    one per subject (an org, a key, an end user, everybody) and kind, in GCRA form: the time at
//            which the bucket is full again. A bucket holds `burst` and gains `per_minute` a minute.
// Holds      admit() takes one request at once and *holds* input, output and spend: what is held is
//            neither used nor free. consume() turns held into used as it happens; settle() does the rest
//            and gives back what was not needed. Used plus held never pass the bucket, so in every window
//            T (to the nanosecond) the tokens of what was admitted in it are ≤ burst + per_minute · T, whatever
//            is given back and when. (Taking all at admission and giving back later breaks that: the bucket has
//            refilled meanwhile, and is paid a second time.)
// Spend      a sum per calendar period (UTC day or month), in millionths. What was spent before this
//            table knew the subject comes from the store: Refusal::Why::unknown_spend asks for it.
// Dead       reclaim() gives back what processes that are gone (pid and start time) held. What they had
//            used stays used.
// Cold       a fresh table (first start, after a reboot) knows no past: one process calls begin_refill(),
//            replay() and end_refill(); until then admit() refuses as `cold` where a limit is set.
// Bounds     subjects, reservations and processes are fixed when the file is made: full is a refusal.
//            A subject at rest (bucket full, nothing held) leaves its place to another.
// Errors     open(): Errc::config for a table of another layout that is in use, again for the 65th
//            process, io. A lock that cannot be had in kLockWaitMs (its holder is stopped) refuses, `busy`.
// Threads    any; processes any. Not across fork: the child opens its own.
// Units      tokens, requests; nanoseconds of CLOCK_MONOTONIC; millionths of the unit of money.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace parley::limits {

inline constexpr int64_t kLockWaitMs = 50;
inline constexpr size_t kSubjectsMax = 4;  // of one admission

struct Rate {
    uint64_t per_minute = 0;  // 0: no limit
    uint64_t burst = 0;       // 0: as much as per_minute
    uint64_t most() const { return burst ? burst : per_minute; }
};

enum class Period : uint8_t { day, month };

struct Limits {
    Rate requests, input_tokens, output_tokens;
    uint64_t concurrent = 0;   // 0: no limit
    uint64_t spend_micro = 0;  // 0: no limit
    Period period = Period::month;
    bool any() const {
        return requests.per_minute || input_tokens.per_minute || output_tokens.per_minute ||
               concurrent || spend_micro;
    }
};

// {"requests":60,"requests_burst":10,"input_tokens":…,"input_tokens_burst":…,"output_tokens":…,
//  "output_tokens_burst":…,"concurrent":8,"spend":12.5,"spend_period":"month","user":{…}}; each may be
// absent. `user` is for each end user apart. Errc::invalid names the member.
struct Written {
    Limits own;
    Limits user;
};
base::Result<Written> parse_limits(std::string_view json);

using SubjectId = std::array<uint64_t, 2>;
// Of any text; the scope ("org", "key", "user") keeps equal texts apart.
SubjectId subject_id(std::string_view scope, std::string_view text);

struct Subject {
    SubjectId id{};
    Limits limits;
    std::optional<uint64_t> spent_micro = {};  // of the running period, from the store
};

struct Demand {
    uint64_t input_tokens = 0;
    uint64_t output_tokens = 0;
    uint64_t spend_micro = 0;
    // false: neither asked for nor counted among requests at once (entries of batches, which are bounded
    // elsewhere and must not keep their caller's own requests out).
    bool at_once = true;
};

enum class Kind : uint8_t { requests, input_tokens, output_tokens, concurrent, spend };
std::string_view name(Kind kind);

struct Refusal {
    enum class Why : uint8_t { limit, unknown_spend, cold, full, busy };
    Why why = Why::limit;
    size_t subject = 0;  // index of the subject whose limit it is
    Kind kind = Kind::requests;
    int64_t wait_ns = 0;  // until it would be admitted if what is held gets used; limit only
    bool never = false;   // it asks for more than the bucket ever holds
};

// What clients are told of one bucket.
struct State {
    uint64_t limit = 0;      // per minute
    uint64_t remaining = 0;  // could be admitted now
    int64_t reset_ns = 0;    // from now until it is full, if what is held gets used
};

// A reservation, by its holder. Plain value: whoever loses it leaves a hold until the process ends.
struct Hold {
    uint32_t place = 0;  // 0: none (no limit applied)
    int64_t at_ns = 0;   // of admission
    size_t count = 0;
    std::array<Subject, kSubjectsMax> subjects{};
};

struct Options {
    std::string path;                    // of the table
    uint32_t subjects_max = 65'536;      // 96 bytes each, sparse
    uint32_t reservations_max = 16'384;  // 80 bytes each
};

class Table;

class Limiter {
  public:
    static base::Result<std::unique_ptr<Limiter>> open(const Options& options,
                                                       const base::Clock& clock);
    ~Limiter();  // gives back what this one still holds
    Limiter(const Limiter&) = delete;
    Limiter& operator=(const Limiter&) = delete;

    // All subjects or none. Subjects without any limit may be left out; with no subject at all the Hold
    // is empty and nothing is counted.
    tl::expected<Hold, Refusal> admit(const Subject* subjects, size_t count, const Demand& demand);
    // So much of the hold is used now; more than was held counts too (`--reserve expected`). Returns the
    // tokens that went past a bucket's whole content by that: the overshoot, 0 when within. nullopt:
    // the lock could not be had, nothing is counted.
    std::optional<uint64_t> consume(const Hold& hold, const Demand& used);
    // The last consume(), and the rest is given back. Without the lock it is kept and done by a later
    // call. `undo`: nothing was begun, the request itself is given back too; only right after admit().
    uint64_t settle(Hold& hold, const Demand& used, bool undo = false);

    std::optional<State> state(const Subject& subject,
                               Kind kind);        // nullopt: no such limit, or busy
    uint64_t concurrent(const Subject& subject);  // reservations that live and count as such

    // Each second or so. Reservations of dead processes that were given back.
    size_t reclaim();

    bool cold();
    bool begin_refill();  // true: do it, now; false: warm, or another process is at it
    void replay(const Subject* subjects, size_t count, const Demand& used, int64_t at_mono_ns);
    void end_refill();

    uint64_t reservations();  // live, of all processes

  private:
    struct Late {
        Hold hold;
        Demand used;
        bool undo;
    };
    Limiter(std::unique_ptr<Table> table, const base::Clock& clock);
    uint64_t use(const Hold& hold, const Demand& used);
    uint64_t finish(const Hold& hold, const Demand& used, bool undo);

    std::unique_ptr<Table> table_;
    const base::Clock& clock_;
    uint32_t process_;
    std::mutex late_lock_;
    std::vector<Late>
        late_;  // settled while the lock could not be had; bounded by reservations_max
};

// Days since 1970 of the period's first day: names the period, and where its sum begins.
uint32_t period_first_day(Period period, int64_t wall_ms);

}  // namespace parley::limits
