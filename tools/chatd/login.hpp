// Login: people come in with user and password, or by the one-time link that is printed at start.
//
// Password   argon2id, verified off the loop, one at a time: kWaitingMax wait, one more is 529. An unknown
//            user costs the same time as a wrong password and gets the same answer.
// Attempts   session::Guard, by name and by address: 429 with retry-after.
// Link       run/login.link (0600) and the log's chatd.login_link; loopback only. It logs in the user
//            `default` of the first org, once, and is void after; SIGHUP makes another.
// Threads    the loop's.
#pragma once

#include <memory>
#include <string>

#include "counter_thread.hpp"
#include "exchange.hpp"
#include "session/guard.hpp"
#include "session/token.hpp"

namespace parley::chatd {

class Login {
  public:
    static constexpr size_t kWaitingMax = 16;

    explicit Login(App& app);
    ~Login();
    void renew_link(const std::string& url);
    void create(const ExchangePtr& exchange);

  private:
    struct Person {
        store::Ulid org, user;
        std::string name;
    };
    void by_link(const ExchangePtr& exchange, const std::string& secret);
    void by_password(const ExchangePtr& exchange, const std::string& org, const std::string& name,
                     std::string password);
    void open_session(const ExchangePtr& exchange, const Person& person);
    std::string link_path() const;

    App& app_;
    CounterThread passwords_;
    session::Guard guard_;
    session::OneTime link_;
    std::string nobody_;  // a password hash that nothing matches
};

}  // namespace parley::chatd
