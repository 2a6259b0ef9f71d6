// DELETE /v1/me/data: all that the caller's user has is taken away, and the key that it was sealed under.
#include <simdjson.h>

#include "app.hpp"
#include "base/json.hpp"
#include "routes.hpp"
#include "store/commands.hpp"
#include "store_errors.hpp"

namespace parley::chatd {
namespace {

// A slice a command: others' commands run between two of them.
void erase_slice(const ExchangePtr& exchange, uint64_t conversations) {
    const store::UserErase command{exchange->caller.org, exchange->caller.user};
    submit_for(exchange, command.json(),
               [exchange, conversations](const store::CommandReply& reply) {
                   simdjson::dom::parser parser;
                   simdjson::dom::element said;
                   uint64_t taken = 0;
                   bool done = false;
                   if (parser.parse(reply.json).get(said) || said["done"].get(done) ||
                       said["conversations"].get(taken))
                       return exchange->error(
                           messages::ApiError::unavailable("the store gave no sense", 1));
                   if (!done) return erase_slice(exchange, conversations + taken);
                   std::string out;
                   base::JsonWriter w(out);
                   w.object()
                       .field("type", "user_data_erased")
                       .field("user", store::show_id(store::kUser, exchange->caller.user))
                       .field("conversations", conversations + taken)
                       .end();
                   exchange->reply(200, std::move(out));
               });
}

}  // namespace

void erase_my_data(const ExchangePtr& exchange) { erase_slice(exchange, 0); }

}  // namespace parley::chatd
